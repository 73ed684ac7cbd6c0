"""A trained bundle -> a model that comes with the package, below boneage_ray/builtin/.

python jobs/make_builtin.py MODEL --facts FACTS.json --set model.backbone.weights=package:NAME
"""

from __future__ import annotations

import argparse
import sys

from boneage_ray import storage
from boneage_ray.commands.builtin_card import read_facts, rewrite_card
from boneage_ray.commands.make_builtin import Evidence, default_root, make_builtin
from boneage_ray.errors import BoneageError
from boneage_ray.runtime.runs import say


def main() -> int:
    """Exit codes as of every command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="A bundle, or an ensemble bundle.")
    parser.add_argument("--facts", required=True, help="JSON: see boneage_ray/commands/make_builtin.py.")
    parser.add_argument("--root", default=default_root(), help="Where NAME/ is written.")
    parser.add_argument("--set", action="append", default=[], help="Say anew where first weights came from.")
    parser.add_argument("--out-of-fold", help="CSV of ages, or JSON of sigma_ratio: see there.")
    parser.add_argument("--gate", help="gate.json of its features: pictures of other things are rejected.")
    parser.add_argument("--stability", help="metrics.json of `boneage evaluate --stability`, for the model card.")
    parser.add_argument("--card-only", action="store_true", help="Write only the card of ROOT/MODEL anew.")
    given = parser.parse_args()
    evidence = Evidence(given.out_of_fold, given.gate, given.stability)
    try:
        if given.card_only:
            folder = storage.join(storage.absolute(given.root), given.model)
            place = rewrite_card(folder, read_facts(given.facts), evidence.out_of_fold, evidence.stability)
        else:
            place = make_builtin(given.model, given.facts, given.root, given.set, evidence)
        say(f"written: {place}")
    except BoneageError as error:
        say(str(error))
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
