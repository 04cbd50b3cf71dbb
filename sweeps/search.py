"""Search a space with Optuna's TPE and ASHA, then train the finalists again on fresh seeds.

    python sweeps/search.py --trials 60               the space below, on the reference experiment's pairs
    python sweeps/search.py --demo --trials 12        the space on the built-in demo set: a minute on 2 cores
    python sweeps/search.py --pairs mobilenet_v2+minilm --minutes 20 --lr 1e-5..1e-3 --D 64 128 256 --finalists 5

Each dimension is a flag, which takes a range, LOW..HIGH, or the values to choose from; a single value fixes it. The
best score of a search is biased upwards, because it is the best of many. So the finalists are trained again, to the end
and on seeds that the search has not seen, and the tables show both numbers.
"""

import sys

from mvsa_tune.sweeps import SEARCH

if __name__ == "__main__":
    sys.exit(SEARCH.main())
