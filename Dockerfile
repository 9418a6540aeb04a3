# indad with the pins of requirements.lock. Not built where it was written: there was no Docker.
#   docker build -t indad .
#   docker run --rm -v $PWD:/work -v /data:/data indad snakemake -s /indad/workflow/Snakefile --cores 8
FROM python:3.11-slim-bookworm
COPY requirements.lock /tmp/
RUN pip install --no-cache-dir uv==0.13.9 \
    && uv pip install --system --no-cache --compile-bytecode -r /tmp/requirements.lock
COPY . /indad
WORKDIR /work
CMD ["snakemake", "-s", "/indad/workflow/Snakefile", "--help"]
