"""The generators of this repository on the scale of known images: the distances of their reference runs."""

import pandas as pd

from common.run.reference import FOLDER

NAMES = {
    ("dcgan", "averaged"): "DCGAN",
    ("dcgan_paper", "raw"): "DCGAN, papers' settings",
    ("wgan_gp", "averaged"): "WGAN-GP",
    ("wgan_gp_paper", "raw"): "WGAN-GP, paper's settings",
}


def reference_models() -> pd.DataFrame:
    """Columns group ("models"), images (its name), frechet, frechet_std; no rows where results are missing."""
    rows = []
    try:
        found = pd.read_csv(FOLDER / "q4_seeds" / "distances.csv")
        last = found[found["epoch"] == found["epoch"].max()].set_index(["setting", "weights"])
        rows += [(name, *last.loc[key, ["frechet", "frechet_std"]]) for key, name in NAMES.items() if key in last.index]
        vae = pd.read_csv(FOLDER / "q3_vae_svm" / "quality.csv")
        rows += [("VAE, prior samples", *vae.loc[0, ["frechet", "frechet_std"]])]
    except (OSError, KeyError, ValueError):
        pass
    return pd.DataFrame(rows, columns=["images", "frechet", "frechet_std"]).assign(group="models")
