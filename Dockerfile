# indad with the versions of requirements.lock. The arguments after the image's name are those of the
# command indad.
#   docker build -t indad .
#   docker run --rm -v $PWD:/work -v /data:/data indad all --configfile mine.yaml --cores 8
FROM python:3.11-slim-bookworm
COPY requirements.lock /tmp/
RUN pip install --no-cache-dir uv==0.13.9 \
    && uv pip install --system --system-certs --no-cache --compile-bytecode \
        -r /tmp/requirements.lock
COPY . /indad
RUN uv pip install --system --system-certs --no-cache --compile-bytecode --no-deps /indad
WORKDIR /work
ENTRYPOINT ["indad"]
CMD ["--help"]
