"""On a Mac: Core ML runs the stored small networks on each compute unit, and must say what PyTorch
said. Prints what differs, network by network, and ends with 1 where one does.

    python tests/swift/on_a_mac.py FOLDER
"""

import sys
from pathlib import Path

from paperrepro import load_model
from paperrepro.export import compare_on_mac, export_coreml, verify_coreml
from paperrepro.export.survey import load_images
from paperrepro.files import data_folder

# Half precision, computed in another order than here: a hundredth of the logits.
LIMIT = 1e-2
NETWORKS = ("mobileone", "fasternet", "mobilevigv2", "rapidnet", "replknet")


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in NETWORKS:
        model = load_model(data_folder("weights") / f"shapes-{name}.safetensors")
        package = folder / f"{name}.mlpackage"
        export_coreml(model, package, size=64, overwrite=True)
        here = verify_coreml(package, model, load_images(None, 64, 8))
        print(f"\n{name}: by the interpreter of this project\n  {here}")
        table = compare_on_mac(package, protocols=False, progress=False)
        print(f"{name}: by Core ML\n{table.to_string(index=False)}")
        bad = table[~(table["error"] <= LIMIT) | (table["agreement"] < 1)]
        failed += [f"{name} on {unit}" for unit in bad["compute_units"]]
        table.to_csv(folder / f"{name}.csv", index=False)
    if failed:
        sys.exit(f"Core ML differs from PyTorch by more than {LIMIT:g}: {', '.join(failed)}")
    print("\nCore ML agrees with PyTorch on every compute unit.")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
