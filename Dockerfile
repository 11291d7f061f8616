# A CPU image that runs the quickstart:
#   docker build -t edgemin-hf .
#   docker run --rm -v "$PWD/runs:/app/runs" edgemin-hf
FROM python:3.11-slim

RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /app
# First what the installation needs, so that a change of the code does not install everything again.
COPY Makefile setup.cfg pyproject.toml constraints.txt README.md LICENSE ./
COPY edgemin_hf edgemin_hf
COPY model_cards model_cards
# Another index for torch, such as one of CPU-only builds, which save gigabytes: --build-arg TORCH_INDEX=https://...
ARG TORCH_INDEX=
RUN make install PYTHON=python3 TORCH_INDEX="${TORCH_INDEX}"

COPY recipes recipes
CMD ["make", "quickstart", "PYTHON=python3"]
