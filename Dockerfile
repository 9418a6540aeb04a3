# indad with the pins of requirements.lock; what follows the image's name is run.py's.
#   docker build -t indad .
#   docker run --rm -v $PWD:/work -v /data:/data indad all --configfile mine.yaml --cores 8
FROM python:3.11-slim-bookworm
COPY requirements.lock /tmp/
RUN pip install --no-cache-dir uv==0.13.9 \
    && uv pip install --system --system-certs --no-cache --compile-bytecode \
        -r /tmp/requirements.lock
COPY . /indad
WORKDIR /work
ENTRYPOINT ["python", "/indad/scripts/run.py"]
CMD ["--help"]
