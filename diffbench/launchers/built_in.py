"""The built-in plug-in: the launchers that diffbench brings, named and not imported."""

from diffbench.hookspecs import hookimpl


@hookimpl
def diffbench_launchers() -> dict[str, str]:
    """On this machine, on a Ray cluster, through a Slurm queue."""
    return {"local": "diffbench.launchers.local:LocalLauncher", "ray": "diffbench.launchers.ray:RayLauncher",
            "slurm": "diffbench.launchers.slurm:SlurmLauncher"}
