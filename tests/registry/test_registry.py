"""The registry: what exists, what was meant, and whose fault it is."""

import subprocess
import sys
from dataclasses import dataclass, fields

import pytest

import diffbench
from diffbench.registry import entry_points as source
from diffbench.registry import registry as registries
from diffbench.registry.registry import Registry
from tests.conftest import REGISTRY

EVERY = [(kind, ref) for kind in REGISTRY.kinds for ref in REGISTRY.refs(kind)]


@pytest.mark.parametrize(("kind", "ref"), EVERY, ids=lambda v: getattr(v, "full_name", v))
def test_every_component_keeps_the_contract(kind, ref):
    cls = REGISTRY.load(ref)
    assert cls.kind == kind
    assert cls.component_name() == ref.name, "the registered name is the class name in snake case"
    assert cls.__dataclass_params__.frozen and all(f.kw_only for f in fields(cls))
    assert cls.__doc__ and not cls.__doc__.startswith(cls.__name__ + "("), "a docstring of its own"
    assert not getattr(cls, "__abstractmethods__", None)
    summary = ref.summary()
    assert summary.text == cls.__doc__.strip().splitlines()[0]
    assert [name for name, _ in summary.options] == [f.name for f in fields(cls)]
    assert summary.is_default == cls.default_of_kind and summary.aliases == cls.aliases


@pytest.mark.parametrize(("kind", "ref"), EVERY, ids=lambda v: getattr(v, "full_name", v))
def test_every_option_has_a_meaning(kind, ref):
    from diffbench.contracts.options import comments

    meanings = comments(REGISTRY.load(ref))
    assert all(meanings.values()), f"options without a comment: {[name for name, text in meanings.items() if not text]}"


def test_each_axis_has_at_most_one_default():
    for kind in REGISTRY.kinds:
        assert sum(ref.summary().is_default for ref in REGISTRY.refs(kind)) <= 1


def test_a_misspelt_name_gets_the_nearest_and_all_known():
    with pytest.raises(diffbench.UnknownComponent, match=r"no scheduler named 'ddppm'\. Did you mean 'ddpm'\? Known: ddim, ddpm, deis, .*, unipc"):
        REGISTRY.create("scheduler", "ddppm")


def test_hyphens_and_aliases():
    assert REGISTRY.find("scheduler", "euler-sde").name == "euler_sde"
    assert REGISTRY.find("scheduler", "euler_maruyama").name == "euler_sde"


@pytest.mark.parametrize(("options", "said"), [
    ({"eta": -0.5}, r"eta must be a number in \[0, 1\], got -0\.5"),
    ({"steps": "50"}, r"steps must be an integer >= 1, got '50' \(text\)"),
    ({"steps": True}, r"steps must be an integer >= 1, got True"),
    ({"eto": 0.1}, r"unknown option 'eto'\. Did you mean 'eta'\? Options of ddim: steps \(50\), eta \(0\.0\)"),
    ({"eta": float("nan")}, r"eta must be a number in \[0, 1\], got nan"),
])
def test_a_wrong_option_is_refused_with_what_would_work(options, said):
    with pytest.raises(diffbench.OptionError, match=said):
        REGISTRY.create("scheduler", "ddim", **options)


def test_a_component_refuses_nonsense_without_the_registry_too():
    cls = REGISTRY.component("scheduler", "ddim")
    with pytest.raises(diffbench.OptionError, match=r"eta must be a number in \[0, 1\], got 2"):
        cls(eta=2)
    assert cls(eta=1) == cls(eta=1.0) and isinstance(cls(eta=1).eta, float)


def test_missing_options_are_named():
    with pytest.raises(diffbench.OptionError, match="cfg needs the option 'inner'"):
        REGISTRY.create("conditioning", "cfg")


def test_listing_imports_neither_torch_nor_a_component():
    code = ("import sys, diffbench.registry.registry as r; refs = [x for k in r.Registry().kinds for x in r.Registry().refs(k)];"
            "[x.summary() for x in refs]; bad = [m for m in sys.modules if m.split('.')[0] in ('torch', 'pandas', 'diffbench_components')];"
            "assert len(refs) > 15 and not bad, bad")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_register_makes_a_class_usable_and_refuses_abstract_ones(monkeypatch):
    monkeypatch.setattr(registries, "_session", {})
    ddim = REGISTRY.component("scheduler", "ddim")

    @diffbench.register
    @dataclass(frozen=True, kw_only=True)
    class Mine(diffbench.Scheduler):
        """Mine."""

        steps: int = 5                                    # calls
        step = ddim.step

    @diffbench.register
    @dataclass(frozen=True, kw_only=True)
    class Unfinished(diffbench.Scheduler):
        """Never finished."""

        steps: int = 5                                    # calls
    found = Registry()
    assert found.create("scheduler", "mine", steps=3).steps == 3
    with pytest.raises(diffbench.BrokenComponent, match="Unfinished does not define step"):
        found.create("scheduler", "unfinished")


def distribution(folder, name, entry_points, modules):
    """An installed distribution as files: what pip would have left."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)
    for module, text in modules.items():
        (folder / f"{module}.py").write_text(text)


SCHEDULER = """
from dataclasses import dataclass
import diffbench
@dataclass(frozen=True, kw_only=True)
class Twin(diffbench.Scheduler):
    '''Twin.'''
    steps: int = 5  # calls
    def step(self, denoise, schedule, x_t, t, s, state, noise):
        return x_t, None
"""


def test_two_packages_with_one_name_need_the_full_name(tmp_path, monkeypatch):
    distribution(tmp_path, "alpha-pack", "[diffbench.scheduler]\ntwin = alpha_mod:Twin\n", {"alpha_mod": SCHEDULER})
    distribution(tmp_path, "beta-pack", "[diffbench.scheduler]\ntwin = beta_mod:Twin\n", {"beta_mod": SCHEDULER})
    monkeypatch.syspath_prepend(tmp_path)
    found = Registry()
    with pytest.raises(diffbench.UnknownComponent, match=r"2 packages offer a scheduler named 'twin': alpha-pack\.twin \(alpha-pack 1\.0\), beta-pack\.twin \(beta-pack 1\.0\)"):
        found.find("scheduler", "twin")
    assert found.find("scheduler", "beta-pack.twin").distribution == "beta-pack"
    assert found.find("scheduler", "beta_pack.twin").distribution == "beta-pack"


def test_a_package_that_cannot_be_imported_is_blamed_and_hurts_nobody_else(tmp_path, monkeypatch):
    distribution(tmp_path, "broken-pack", "[diffbench.scheduler]\nbroken = broken_mod:Broken\n", {"broken_mod": "import a_module_nobody_has\n"})
    monkeypatch.syspath_prepend(tmp_path)
    found = Registry()
    assert "broken-pack.broken" in [r.full_name for r in found.refs("scheduler")]
    with pytest.raises(diffbench.BrokenComponent, match=r"'broken-pack\.broken' of broken-pack 1\.0 cannot be used: importing .* ModuleNotFoundError: No module named 'a_module_nobody_has'"):
        found.create("scheduler", "broken")
    assert [p.distribution for p in found.problems] == ["broken-pack"]
    assert found.create("scheduler", "ddim").steps == 50


def test_a_target_that_is_no_component_is_blamed(tmp_path, monkeypatch):
    distribution(tmp_path, "odd-pack", "[diffbench.scheduler]\nodd = odd_mod:Odd\n", {"odd_mod": "class Odd: pass\n"})
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(diffbench.BrokenComponent, match=r"odd_mod:Odd is not a subclass of diffbench\.Scheduler"):
        Registry().create("scheduler", "odd")


def test_hook_plug_ins_are_loaded_one_by_one(tmp_path, monkeypatch):
    """The first is broken, the second misspells a hook, the third works and is heard, its observer fails and is switched off."""
    distribution(tmp_path, "a-broken", "[diffbench]\nhooks = a_broken_hooks\n", {"a_broken_hooks": "raise RuntimeError('no')\n"})
    distribution(tmp_path, "b-misspelt", "[diffbench]\nhooks = b_misspelt_hooks\n", {
        "b_misspelt_hooks": "from diffbench import hookimpl\n@hookimpl\ndef diffbench_rov_added(row): pass\n"})
    distribution(tmp_path, "c-works", "[diffbench]\nhooks = c_works_hooks\n", {
        "c_works_hooks": "from diffbench import hookimpl\nheard = []\n@hookimpl\ndef diffbench_row_added(row):\n    heard.append(row)\n    1 / len(heard[:-1])\n"})
    monkeypatch.syspath_prepend(tmp_path)
    found = Registry()
    assert {p.distribution.partition(":")[0] for p in found.problems} == {"a-broken", "b-misspelt"}
    found.answers("diffbench_row_added", row={"cell_id": "x"}, folder=None)
    found.answers("diffbench_row_added", row={"cell_id": "y"}, folder=None)
    assert [p for p in found.problems if "c-works" in p.message and "ZeroDivisionError" in p.message]
    assert len(sys.modules["c_works_hooks"].heard) == 1, "a switched-off observer is heard no more"


def test_names_that_could_be_paths_are_left_out(tmp_path, monkeypatch):
    distribution(tmp_path, "evil-pack", "[diffbench.scheduler]\n../x = evil_mod:Twin\n", {"evil_mod": SCHEDULER})
    monkeypatch.syspath_prepend(tmp_path)
    found = Registry()
    assert all(source.is_name(r.name) for r in found.refs("scheduler"))
    assert any(p.distribution == "evil-pack" for p in found.problems)


def test_shared_options_are_listed_without_import():
    """`mse` has its options from a base in another module, `linear` from a public base of the harness."""
    options = dict(REGISTRY.find("objective", "mse").summary().options)
    assert options["weighting"] == "'simple'" and options["law"] == "'uniform'"
    assert dict(REGISTRY.find("noise_schedule", "linear").summary().options)["zero_terminal_snr"] == "False"
    for kind in REGISTRY.kinds:
        for ref in REGISTRY.refs(kind):
            assert [name for name, _ in ref.summary().options] == [f.name for f in fields(REGISTRY.load(ref))], ref.full_name


def test_presets_are_options_and_options_beside_them_win():
    ddpm = REGISTRY.create("backbone", "unet", preset="ddpm_cifar10", dropout=0.0)
    assert ddpm.channels == 128 and ddpm.dropout == 0.0
    with pytest.raises(diffbench.OptionError, match="unknown preset 'ddpm_cifar'. Did you mean 'ddpm_cifar10'.* Presets: tiny, small"):
        REGISTRY.create("backbone", "unet", preset="ddpm_cifar")
    with pytest.raises(diffbench.OptionError, match="unknown preset 'x'. ddim has no presets"):
        REGISTRY.create("scheduler", "ddim", preset="x")
