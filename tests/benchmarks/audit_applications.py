"""What the audit finds in every model of `keras.applications`, with weights drawn anew.

Run it from the repository: `python tests/benchmarks/audit_applications.py [NAME ...]`. It prints a
row for each model and each kind of finding; docs/audit.md explains them. Models are built at the
smallest input that their 1000 classes allow.
"""

from __future__ import annotations

import gc
import inspect
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator

import keras

import kregs

# the smallest side with the classifier on top: what the last pooling or the flattening needs
_SIDES = {"InceptionResNetV2": 75, "InceptionV3": 75, "Xception": 71, "NASNetLarge": 331}
_NASNET = 224  # NASNetMobile's, whose size is fixed, too
_SIDE = 32


def applications() -> dict[str, object]:
    """Return every function of `keras.applications` that builds a model."""
    return {
        name: value
        for name, value in sorted(vars(keras.applications).items())
        if inspect.isfunction(value) and name[0].isupper()
    }


def build(name: str) -> keras.Model:
    """Return one of the models, with weights drawn anew."""
    side = _NASNET if name == "NASNetMobile" else _SIDES.get(name, _SIDE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MobileNets warn of sizes that have no weights to load
        return applications()[name](weights=None, input_shape=(side, side, 3))


def rows(name: str) -> Iterator[str]:
    """Yield a line for each finding of one model."""
    started = time.perf_counter()
    model = build(name)
    built = time.perf_counter()
    audit = kregs.audit(model)
    seconds = f"{built - started:6.1f} s {time.perf_counter() - built:6.1f} s"
    counted = Counter((f.code, f.severity, f.what) for f in audit.findings)
    layers = {(f.code, f.severity, f.what): len(f.layers) for f in audit.findings}
    if not counted:
        yield f"{name:20} {seconds}  nothing"
    for code, severity, what in counted:
        yield f"{name:20} {seconds}  {code} {severity:8} {layers[code, severity, what]:4}  {what}"
    unseen = [text for text in audit.unseen if not text.startswith("no optimizer")]
    if unseen:
        yield f"{name:20} {'':18}  not seen: {len(unseen)} layers, {unseen[0]}"


def main() -> None:
    names = sys.argv[1:] or list(applications())
    print(f"{'model':20} {'built':>8} {'audited':>8}  rule  severity layers  what")
    for name in names:
        for row in rows(name):
            print(row, flush=True)
        keras.backend.clear_session()
        gc.collect()


if __name__ == "__main__":
    main()
