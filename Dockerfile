# A server of one's own: the page for strangers, on port 7860. A Hugging Face Space needs no image: `make space`.
#
#   docker build -t fisher-merge-studio .
#   docker run -p 7860:7860 -v fisher-merge-studio:/data fisher-merge-studio
#   docker build --build-arg TORCH=cu130 -t fisher-merge-studio .     then `docker run --gpus all …`
#
# Tested without a container engine, by tests/tools/test_container.py and tests/ui/test_space.py: what is copied exists, and
# the same requirements under the same lock, started by CMD with these variables, answer HEALTHCHECK's question and serve
# the page. NOT run so far: the build itself, the base image, torch from its own index, the user, the volume, any GPU.
ARG PYTHON=3.12
FROM python:${PYTHON}-slim

# Which build of torch: `cpu` (200 MB), or one for CUDA such as `cu130` (gigabytes).
ARG TORCH=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1

# Kept: Fishers that took time to estimate, what came from the Hub, and the datasets made of it.
ENV FISHER_CACHE_DIR=/data/fishers HF_HOME=/data/huggingface
ENV GRADIO_SERVER_NAME=0.0.0.0 GRADIO_SERVER_PORT=7860 GRADIO_ANALYTICS_ENABLED=False

RUN useradd --create-home --uid 1000 studio && install -d -o studio -g studio /data
WORKDIR /studio

# The packages change less often than the app: a layer of their own. torch comes alone from its index, the rest, its own
# needs among them, from PyPI; the lock's version of torch is met by torch==VERSION+cpu, too.
COPY requirements.txt tests/constraints.txt ./
RUN pip install --no-deps --index-url "https://download.pytorch.org/whl/${TORCH}" "$(grep '^torch==' constraints.txt)"
RUN pip install -r requirements.txt -c constraints.txt

# The app belongs to root and runs as somebody who cannot change it.
COPY app.py pyproject.toml README.md LICENSE ./
COPY components components
COPY merging merging
RUN python -m compileall -q app.py components merging

USER studio
VOLUME /data
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as ask; ask.urlopen(f\"http://127.0.0.1:{os.environ['GRADIO_SERVER_PORT']}/health\", timeout=5)"]
CMD ["python", "app.py", "--hosted"]
