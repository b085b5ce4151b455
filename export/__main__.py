"""The doctor: ``python -m export`` says which formats there are and what this machine can run."""

import argparse
from collections.abc import Sequence

from export.base import RUNTIMES, installed, runtime
from zoo.cli import run
from zoo.models import list_models


def main(argv: Sequence[str] | None = None) -> int:
    """Print every format with its packages and, for each provider, ``runs`` or the reason it does not."""
    parser = argparse.ArgumentParser(
        prog="python -m export", description="What this machine can export to and run."
    )
    parser.add_argument(
        "--models", action="store_true", help="list the names that --model takes, and nothing else"
    )
    if parser.parse_args(argv).models:
        print("\n".join(list_models()))
        return 0
    for name in RUNTIMES:
        chosen = runtime(name)
        print(f"{chosen.title}: python -m export.{name} --model NAME writes NAME{chosen.suffix}")
        packages = [f"{package} {installed(package) or 'missing'}" for package in chosen.packages]
        print(f"  packages  {', '.join(packages)}")
        for provider in chosen.providers:
            reason = chosen.available(provider)
            print(f"  {provider:<8}  {'runs' if reason is None else f'does not run: {reason}'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
