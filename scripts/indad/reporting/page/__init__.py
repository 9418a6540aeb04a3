"""The report page: what it shows, its inline drawings and pictures, and its template."""
