"""Probes and reference outputs in files: to compare two machines, or with a reference that is gone.

Both are archives as `reparamkit.compare.saved_archive` has them. For the outputs there is what a verdict
needs besides them: rounding noise, precision, and a hash of the inputs that they were computed from. Outputs
are float64.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reparamkit.compare.float64.recorded import Recorded
from reparamkit.compare.float64.run import Run, Truth
from reparamkit.compare.inputs.input_spec import Described, Kind
from reparamkit.compare.inputs.probes import Probe
from reparamkit.compare.noise import Noise, PerAxis, scale_along
from reparamkit.compare.saved_archive import (
    AS_INTEGERS,
    META,
    OUTPUTS,
    PROBES,
    dtype_of,
    meta_of,
    plain,
    write,
)
from reparamkit.compare.saved_schema import check_outputs, check_probes
from reparamkit.errors import UnusableInput
from reparamkit.loading.door.arrays import read_npz
from reparamkit.loading.door.files import exists
from reparamkit.support.inputs import Args, Kwargs, tensor_leaves
from reparamkit.support.text import dtype_name


@dataclass(frozen=True)
class SavedOutputs:
    """A file of reference outputs.

    Attributes:
        path: where it lies.
        reference: how the reference was called.
        names: how its inputs are called.
        described: the inputs as they were described, where the example was drawn from a description.
        seed: of the probes.
    """

    path: Path
    reference: str
    names: list[str]
    described: list[Described] | None
    seed: int
    _meta: dict[str, Any]
    _arrays: dict[str, np.ndarray[Any, Any]]

    @property
    def keyword(self) -> list[str]:
        """The names of the inputs that are given by keyword."""
        return [str(name) for name in self._meta["keyword"]]

    @property
    def positional(self) -> list[str]:
        """The names of the inputs that are given by place."""
        return [name for name in self.names if name not in self.keyword]

    @property
    def precision(self) -> torch.dtype:
        """The reference's."""
        return dtype_of(self._meta["precision"])

    @property
    def probe_facts(self) -> list[dict[str, Any]]:
        """For each record the fields of its `Probe` that are plain: name, group, pattern, sizes, axes."""
        return [entry["probe"] for entry in self._meta["records"]]

    def recorded(self, probes: Sequence[Probe]) -> Recorded:
        """The reference's outputs, once the inputs have proved to be those that they belong to.

        Args:
            probes: one per record, or more; they are found by name.

        Raises:
            UnusableInput: a probe is missing, or its inputs are others.
        """
        by_name = {probe.name: probe for probe in probes}
        records = []
        for place, entry in enumerate(self._meta["records"]):
            name = entry["probe"]["name"]
            probe = by_name.get(name)
            if probe is None:
                raise UnusableInput(
                    f"{self.path} holds outputs for the probe {name!r}, and the inputs given have none of "
                    f"that name; give the inputs that --save-inputs wrote along with it (--inputs FILE)"
                )
            if input_hash(probe) != entry["hash"]:
                raise UnusableInput(
                    f"{self.path} does not belong to these inputs: their hash on the probe {name!r} is "
                    f"another. Give the inputs that --save-inputs wrote along with it (--inputs FILE)"
                )
            records.append(Run(probe, tuple(self._truths(place, entry["outputs"]))))
        other_order = None
        if order := self._meta.get("order", ""):
            truths = (self._in_another_order(place, run) for place, run in enumerate(records))
            wide = [replace(run, truths=each) for run, each in zip(records, truths, strict=True)]
            other_order = wide, order
        return Recorded(
            records,
            self._meta["oracle"],
            dtype_of(self._meta["precision"]),
            self._meta["structured"],
            self.seed,
            list(self._meta["notes"]),
            other_order=other_order,
        )

    def _in_another_order(self, place: int, record: Run) -> tuple[Truth, ...]:
        outputs = self._meta["records"][place]["outputs"]
        return tuple(
            truth.with_noise(
                Noise(float(entry["order"]), self._along(f"order {place}.{number}", truth.values))
            )
            if "order" in entry
            else truth
            for number, (entry, truth) in enumerate(zip(outputs, record.truths, strict=True))
        )

    def _truths(self, place: int, outputs: list[dict[str, Any]]) -> list[Truth]:
        truths = []
        for number, entry in enumerate(outputs):
            undecided = self._arrays.get(f"undecided {place}.{number}")
            values = torch.from_numpy(self._arrays[f"output {place}.{number}"])
            along = self._along(f"noise {place}.{number}", values)
            truths.append(
                Truth(
                    entry["name"],
                    values,
                    dtype_of(entry["dtype"]),
                    float(entry["noise"]),
                    float(entry["scale"]),
                    int(entry["finite"]),
                    None if undecided is None else torch.from_numpy(undecided),
                    scale_along(values) if any(each is not None for each in along) else (),
                    along,
                )
            )
        return truths

    def _along(self, key: str, values: torch.Tensor) -> PerAxis:
        """The rounding noise along each axis; files of before hold none."""
        per_axis: list[torch.Tensor | None] = []
        for axis, length in enumerate(values.shape if values.is_floating_point() else ()):
            array = self._arrays.get(f"{key}.{axis}")
            usable = array is not None and array.shape == (length,) and array.dtype == np.float64
            per_axis.append(torch.from_numpy(array) if usable else None)
        return tuple(per_axis)


def input_hash(probe: Probe) -> str:
    """SHA-256 over the dtype, shape and bytes of every input of a probe, in call order."""
    digest = hashlib.sha256()
    for _, tensor in tensor_leaves(*probe.inputs()):
        array = plain(tensor)
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()


def save_probes(path: Path, probes: Sequence[Probe], names: Sequence[str], seed: int) -> None:
    """Write the inputs of probes; they can be given again as a file of inputs.

    Args:
        path: an ``.npz``.
        probes: in the order in which they were tried.
        names: how the inputs are called, in call order.

    Raises:
        UnusableInput: an input is no tensor, or lies inside another argument.
        OSError: it cannot be written.
    """
    arrays: dict[str, Any] = {}
    facts = []
    for place, probe in enumerate(probes):
        args, kwargs = probe.inputs()
        if not all(isinstance(value, torch.Tensor) for value in (*args, *kwargs.values())):
            raise UnusableInput(
                f"cannot write {path}: the inputs are not plain tensors, and only those can be saved"
            )
        called = [*[None] * len(args), *kwargs]
        inputs = []
        for number, (keyword, tensor) in enumerate(zip(called, (*args, *kwargs.values()), strict=True)):
            name = names[number] if number < len(names) else f"arr_{number}"
            key = f"{place:03d} {probe.name}/{name}"
            arrays[key] = plain(tensor)
            inputs.append({"array": key, "keyword": keyword, "dtype": dtype_name(tensor.dtype)})
        facts.append({**_facts(probe), "inputs": inputs})
    write(path, {"format": PROBES, "seed": seed, "probes": facts}, arrays)


def load_probes(path: Path) -> list[Probe] | None:
    """The probes of a file that `save_probes` wrote; None for any other ``.npz``.

    Raises:
        UnusableInput: it is damaged.
    """
    arrays = read_npz(path)
    if META not in arrays:
        return None
    meta = meta_of(path, arrays, PROBES)
    try:
        check_probes(meta, arrays)
        return [_probe(entry, arrays, meta["seed"]) for entry in meta["probes"]]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
        raise UnusableInput(f"{path} is damaged: it is no whole file of probes") from error


def save_outputs(
    path: Path,
    recorded: Recorded,
    reference: str,
    names: Sequence[str],
    described: Sequence[Described] | None,
) -> None:
    """Write what a reference computed on each probe.

    Args:
        path: an ``.npz``.
        reference: how it was called.
        names: how its inputs are called.
        described: how the example was drawn, if it was.

    Raises:
        OSError: it cannot be written.
    """
    arrays: dict[str, Any] = {}
    records = []
    # Whoever reads them has no reference at hand that could be run again.
    wide, said = recorded.in_another_order()
    for place, record in enumerate(recorded.records):
        outputs: list[dict[str, Any]] = []
        for number, truth in enumerate(record.truths):
            arrays[f"output {place}.{number}"] = plain(truth.values)
            if truth.undecided is not None:
                arrays[f"undecided {place}.{number}"] = plain(truth.undecided)
            arrays |= _per_axis(f"noise {place}.{number}", truth.along_noise)
            outputs.append(
                {
                    "name": truth.name,
                    "dtype": dtype_name(truth.dtype),
                    "noise": repr(truth.noise),
                    "scale": repr(truth.scale),
                    "finite": truth.finite,
                }
            )
            if said:
                ordered = wide[place].truths[number]
                outputs[-1]["order"] = repr(ordered.noise)
                arrays |= _per_axis(f"order {place}.{number}", ordered.along_noise)
        records.append({"probe": _facts(record.probe), "hash": input_hash(record.probe), "outputs": outputs})
    meta = {
        "format": OUTPUTS,
        "reference": reference,
        "names": list(names),
        "keyword": list(recorded.records[0].probe.kwargs),
        "described": None if described is None else [_description(entry) for entry in described],
        "seed": recorded.seed,
        "oracle": recorded.oracle,
        "precision": dtype_name(recorded.precision),
        "structured": recorded.structured,
        "notes": recorded.notes,
        "order": said,
        "records": records,
    }
    write(path, meta, arrays)


def _per_axis(key: str, noise: PerAxis) -> dict[str, np.ndarray[Any, Any]]:
    return {f"{key}.{axis}": plain(each) for axis, each in enumerate(noise) if each is not None}


def load_outputs(path: Path) -> SavedOutputs:
    """Read what `save_outputs` wrote.

    Raises:
        UnusableInput: there is no such file, or it is another kind of file, or damaged.
    """
    if not exists(path):
        raise UnusableInput(f"there is no file {path}")
    arrays = read_npz(path)
    if META not in arrays:
        raise UnusableInput(f"{path} holds no reference outputs: --save-outputs did not write it")
    meta = meta_of(path, arrays, OUTPUTS)
    try:
        check_outputs(meta, arrays)
        described = meta["described"]
        saved = SavedOutputs(
            path,
            str(meta["reference"]),
            [str(name) for name in meta["names"]],
            None if described is None else [_from_description(entry) for entry in described],
            int(meta["seed"]),
            meta,
            arrays,
        )
        for place, entry in enumerate(meta["records"]):
            saved._truths(place, entry["outputs"])
        _ = saved.precision, saved.keyword
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
        raise UnusableInput(f"{path} is damaged: it is no whole file of reference outputs") from error
    if not meta["records"]:
        raise UnusableInput(f"{path} holds no outputs")
    return saved


def _facts(probe: Probe) -> dict[str, Any]:
    return {
        "name": probe.name,
        "group": probe.group,
        "pattern": probe.pattern,
        "fixed": probe.fixed,
        "sizes": probe.sizes,
        "axes": [
            [index, axis, name] for index, axes in probe.dynamic_axes.items() for axis, name in axes.items()
        ],
    }


def again(facts: dict[str, Any], seed: int, args: Args, kwargs: Kwargs, kinds: dict[int, Kind]) -> Probe:
    """The probe of `probe_facts`, made from an example anew."""
    axes: dict[int, dict[int, str]] = {}
    for index, axis, name in facts["axes"]:
        axes.setdefault(index, {})[axis] = name
    return Probe(
        facts["name"],
        facts["group"],
        seed,
        args,
        kwargs,
        axes,
        dict(facts["sizes"]),
        facts["pattern"],
        kinds,
        bool(facts["fixed"]),
    )


def _probe(entry: dict[str, Any], arrays: dict[str, np.ndarray[Any, Any]], seed: int) -> Probe:
    args: list[torch.Tensor] = []
    kwargs: dict[str, torch.Tensor] = {}
    for part in entry["inputs"]:
        dtype = dtype_of(part["dtype"])
        tensor = torch.from_numpy(arrays[part["array"]])
        tensor = tensor.view(dtype) if dtype in AS_INTEGERS else tensor.to(dtype)
        if part["keyword"] is None:
            args.append(tensor)
        else:
            kwargs[part["keyword"]] = tensor
    # As it lies there, so its sizes say only that it is not of the example's.
    return Probe(
        entry["name"],
        entry["group"],
        seed,
        tuple(args),
        kwargs,
        sizes=dict(entry["sizes"]),
        pattern=entry["pattern"],
        fixed=True,
    )


def _description(entry: Described) -> dict[str, Any]:
    return {
        "name": entry.name,
        "shape": list(entry.shape),
        "dtype": dtype_name(entry.dtype),
        "kind": [entry.kind.name, entry.kind.low, entry.kind.high],
    }


def _from_description(entry: dict[str, Any]) -> Described:
    return Described(entry["name"], tuple(entry["shape"]), dtype_of(entry["dtype"]), Kind(*entry["kind"]))
