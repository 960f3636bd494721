"""What diffusers offers, read from its files: a command that only lists must not wait for diffusers to be imported."""

import importlib.metadata
import importlib.util
import re
from pathlib import Path

from diffbench import Ref, Summary, hookimpl

# Written for tables of betas, and yet nothing a row could be made of.
LEFT_OUT = {
    "IPNDMScheduler": "it ignores the table of betas for one of its own",
    "RePaintScheduler": "it fills holes of a given image", "CogVideoXDPMScheduler": "its step takes two times and an old prediction",
    "CogVideoXDDIMScheduler": "it changes the table of betas it is given",
    "LCMScheduler": "it is for networks distilled to consistency", "TCDScheduler": "it is for networks distilled to consistency",
    "DPMSolverSDEScheduler": "its noise comes from a tree of torchsde, not from the harness",
}
NETWORKS = {"unet2d": "UNet2DModel: ResNet blocks and attention.", "unet2d_condition": "UNet2DConditionModel: ResNet blocks and cross-attention.",
            "dit": "DiTTransformer2DModel: DiT with adaLN-Zero."}


@hookimpl
def diffbench_components(kinds):
    version = importlib.metadata.version("diffusers")

    def ref(kind, name, target, summary):
        return Ref(kind=kind, name=name, target=f"diffbench_diffusers.{target}", distribution="diffusers", version=version, told=summary)
    for peer in scheduler_names():
        yield ref("scheduler", component_name(peer), f"schedulers:{class_name(peer)}",
                  Summary(text=f"{peer} of diffusers.", options=(("steps", "20"),), aliases=(f"diffusers:{peer}", peer.lower())))
    for name, text in NETWORKS.items():
        yield ref("backbone", name, f"networks:{class_name(name)}", Summary(text=text))
    yield ref("spacing", "times_of", "spacings:TimesOf", Summary(text="The times that a scheduler of diffusers visits.", options=(("of", "required"),)))


def scheduler_names() -> list[str]:
    """Schedulers on a table of betas that step with (model_output, timestep, sample) alone, and flow matching by Euler and Heun."""
    folder = Path(importlib.util.find_spec("diffusers").submodule_search_locations[0]) / "schedulers"
    found = ["FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"]
    for path in sorted(folder.glob("scheduling_*.py")):
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r"^class (\w+Scheduler)\(", text, re.MULTILINE) if "trained_betas" in text else ():
            if name not in LEFT_OUT and "Inverse" not in name and "Flax" not in name and "Parallel" not in name:
                found.append(name)
    return found


def component_name(peer: str) -> str:
    """'DPMSolverSinglestepScheduler' is dpm_solver_singlestep."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", peer.removesuffix("Scheduler"))
    return words.lower()


def class_name(peer: str) -> str:
    """The class of a component has the component's name in camel case."""
    return "".join(part.capitalize() for part in component_name(peer).split("_"))
