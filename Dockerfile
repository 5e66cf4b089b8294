# vlaser-gym with pictures on a CPU:
#   docker build -t vlaser-gym .
#   docker run --rm -v "$PWD/runs:/gym/runs" vlaser-gym eval task=widowx_stack_cube agent=expert episodes=4
# PyTorch comes from pip's own index; TORCH_INDEX=URL names another, such as that of its CPU builds (PyTorch's installation
# page lists them). With NVIDIA's driver for EGL and Vulkan:
#   docker build -t vlaser-gym:gpu --build-arg EXTRAS=gpu,maniskill .
#   docker run --rm --gpus all vlaser-gym:gpu doctor
FROM python:3.11-slim-bookworm

# Mesa's EGL draws without a GPU; libvulkan1 and Mesa's driver are for engine=maniskill.
RUN apt-get update && apt-get install -y --no-install-recommends \
        libegl1 libgl1-mesa-dri libgles2 libvulkan1 mesa-vulkan-drivers \
    && rm -rf /var/lib/apt/lists/*

ARG TORCH_INDEX=
ARG EXTRAS=gymnasium
WORKDIR /opt/vlaser-gym
RUN pip install --no-cache-dir torch==2.13.0 ${TORCH_INDEX:+--index-url "${TORCH_INDEX}"}
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY vlaser_gym ./vlaser_gym
RUN pip install --no-cache-dir ".[${EXTRAS}]" -c constraints.txt

# What NVIDIA's container runtime must bring for EGL and Vulkan, besides CUDA.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility,graphics
WORKDIR /gym
ENTRYPOINT ["vlaser-gym"]
CMD ["doctor"]
