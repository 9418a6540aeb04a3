"""Colours of figures and of the report page."""

#: Okabe and Ito's colours, suitable for colour-blind readers, without yellow (too pale on white).
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#4D4D4D")
#: Text, secondary text, and lines in the background.
INK, GREY, PALE = "#1a1a1a", "#5f6368", "#dadce0"
#: Errors at the threshold; always shown together with the word.
MISSED, FALSE_ALARM = "#E69F00", "#C8102E"
#: Outline of the ground truth.
OUTLINE = "#00e5ff"
