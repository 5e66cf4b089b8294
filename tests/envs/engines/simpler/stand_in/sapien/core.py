class RenderConfig:
    """What environments set when they are built."""

    camera_shader_dir = "ibl"


render_config = RenderConfig()
