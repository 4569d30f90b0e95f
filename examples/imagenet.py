"""ResNet-50 on ImageNet with selective weight decay, on one device or on many.

    python examples/imagenet.py epochs-90-sparsity-90 --data DIR
    python examples/imagenet.py epochs-90-sparsity-90 --data DIR --sparsity 0
    python examples/imagenet.py epochs-90-sparsity-90 --synthetic --steps 200
    python examples/imagenet.py compile v5e:4x4 epochs-90-sparsity-90

DIR has train/<class>/*.JPEG and val/<class>/*.JPEG. A run that was stopped goes on when
the same command is given again. `compile` says without a TPU whether a run fits one.
"""

import os
import sys
from pathlib import Path

import tyro

from imagenet_training.config import Config, reference_configs


def main(config: Config) -> None:
    from imagenet_training.loop import run  # workers that decode images need none of it

    run(config)


def compile_step(arguments: list[str]) -> None:
    from imagenet_training.compile_for import CompileFor, run

    compile_for, rest = tyro.cli(
        CompileFor,
        args=arguments,
        prog="imagenet.py compile",
        return_unknown_args=True,
    )
    run(compile_for, tyro.extras.overridable_config_cli(reference_configs(), args=rest))


if __name__ == "__main__":
    try:
        if sys.argv[1:2] == ["compile"]:
            compile_step(sys.argv[2:])
        else:
            main(
                tyro.extras.overridable_config_cli(
                    reference_configs(), description=__doc__
                )
            )
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from here.", file=sys.stderr)
        sys.stderr.flush()
        os._exit(130)
    except (OSError, ValueError, ImportError) as error:
        sys.exit(f"{Path(__file__).name}: {error}")
