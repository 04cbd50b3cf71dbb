r"""Fine-tune encoders end to end with the head: the reference experiment's fine-tuned rows, or any pair.

    python sweeps/finetune.py                      the reference's rows: ResNet-50 and RoBERTa-base, six configurations
    python sweeps/finetune.py --split reference    the same on the samples of its frozen rows
    python sweeps/finetune.py --demo               two small built-in encoders on the demo set: a minute on 2 cores
    python sweeps/finetune.py --pairs mobilenet_v2+minilm --weights mobilenet_v2=FILE minilm=FOLDER --epochs 4 \
        --lr 1e-3 --encoder-lr 2e-5 5e-5 --frozen 0.75 --warmup 0.1 --schedule cosine

The reference fine-tunes with one BatchNorm for both modalities, and on another split than that of its frozen rows
(docs/reference.md): so are its rows trained here, and beside them with a BatchNorm for each. The encoders are trained
at the head's learning rate unless --encoder-lr is given. A trial that is killed continues from its last checkpoint.
--dry-run shows what would run, and for how long.
"""

import sys

from mvsa_tune.sweeps import FINETUNE

if __name__ == "__main__":
    sys.exit(FINETUNE.main())
