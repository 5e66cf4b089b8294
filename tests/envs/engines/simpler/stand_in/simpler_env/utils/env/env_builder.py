import simpler_env


def build_maniskill2_env(env_name, **kwargs):
    if kwargs.get("rgb_overlay_path") is not None and kwargs.get("rgb_overlay_cameras") is None:
        raise NotImplementedError("the caller names the cameras")
    return simpler_env.registered(env_name, **kwargs)
