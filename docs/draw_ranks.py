"""Draw docs/images/ranks.png, the ranks of First steps, anew: a fit of 1,600 headlines.

Run from the repository, with the extras demo and plot: python docs/draw_ranks.py
"""

import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "examples"))


def main():
    from gallery_data import headlines
    from sklearn.model_selection import train_test_split

    from sk_adalora import AdaLoraClassifier, RankAllocationDisplay

    texts, topics = headlines()
    X_train, _, y_train, _ = train_test_split(
        texts, topics, train_size=1600, stratify=topics, random_state=0
    )
    classifier = AdaLoraClassifier(target_r=4, random_state=0).fit(X_train, y_train)
    display = RankAllocationDisplay.from_estimator(classifier)
    folder = HERE / "images"
    folder.mkdir(exist_ok=True)
    display.figure_.savefig(folder / "ranks.png", dpi=120)


if __name__ == "__main__":
    main()
