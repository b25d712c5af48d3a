"""`python -m tests.faults NAME --count N --seed S`: the full matrix of one kind of fault.

It prints each fault's moment and what became of it, and at the end the seed. Faults that come too late, when the
victim has ended by itself, are made up for by others. The same name, seed, shape and `--lives` give the same moments
again; `--only 17` replays the seventeenth alone.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from tests.faults import kafka, kafka_state, outputs, resume, streams, syncs, tables
from tests.faults.matrix import NAMES, ROWS, SHAPES, VICTIMS, FaultError, Outcome, attempt, faults, lives, suffer
from tests.services.kafka import KafkaCluster
from tests.support import preloaded

MACHINES = {machine.NAME: machine for machine in (streams, outputs, tables, syncs)}
"""Random cases that are compared with a model."""


def main() -> int:
    """Run the matrix; 1 if anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Kill processes at random moments.")
    parser.add_argument("name", choices=(*NAMES, resume.NAME, kafka.NAME, kafka_state.NAME, *MACHINES))
    parser.add_argument("--count", type=int, default=20, help="number of faults (20)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments (1)")
    parser.add_argument("--rows", type=int, default=ROWS, help=f"records of a run ({ROWS})")
    parser.add_argument("--shape", choices=SHAPES, default="plain", help="of the pipeline (plain)")
    parser.add_argument("--only", "--case", type=int, help="replay only the fault with this number")
    parser.add_argument("--lives", help="seconds that streamline,tap,target live, as printed; measured by default")
    parser.add_argument("--workers", type=int, default=1, help="random cases at a time (1)")
    args = parser.parse_args()
    if args.name in MACHINES:
        return random_cases(args.name, args.count, args.seed, args.only, args.workers)
    base = Path(tempfile.mkdtemp(prefix="faults-"))
    preloaded.real = True
    if args.name == resume.NAME:
        return kill_and_resume(args, base)
    if args.name in (kafka.NAME, kafka_state.NAME):
        return kafka_lives(args, base)
    if args.lives:
        life = dict(zip(VICTIMS, map(float, args.lives.split(",")), strict=True))
    else:
        measured = [lives(base / f"measure{n}", args.rows, args.shape) for n in range(2)]
        life = {victim: max(run[victim] for run in measured) for victim in VICTIMS}
    told = ",".join(f"{life[victim]:.3f}" for victim in VICTIMS)
    print(f"{args.name}, seed {args.seed}, --shape {args.shape} --lives {told}", flush=True)
    return kills(
        args,
        base,
        faults(args.name, 3 * args.count, args.seed),
        lambda root, fault: suffer(root, fault, life[fault.victim], args.rows, args.shape),
    )


def kills(
    args: argparse.Namespace, base: Path, faults: Iterable[Any], suffer: Callable[[Path, Any], Outcome | str]
) -> int:
    """Kill processes until as many kills as asked for came in time; 1 if anything was wrong."""
    wrong = late = done = 0
    for fault in faults:
        if args.only not in (None, fault.number):
            continue
        if done == args.count:
            break
        root = base / str(fault.number)
        try:
            outcome = str(suffer(root, fault))
        except FaultError as error:
            done += 1
            wrong += 1
            print(f"#{fault.number} WRONG: {error}", flush=True)
            continue
        late += "too late" in outcome
        done += "too late" not in outcome
        print(outcome, flush=True)
        shutil.rmtree(root)
    print(f"{args.name}, seed {args.seed}: {done} faults, {wrong} wrong; {late} more came too late")
    return ended(base, wrong)


def ended(base: Path, wrong: int) -> int:
    """Keep the projects if anything was wrong, and return the exit code."""
    if wrong:
        print(f"their projects are kept in {base}")
        return 1
    shutil.rmtree(base)
    return 0


def kill_and_resume(args: argparse.Namespace, base: Path) -> int:
    """The matrix of `kill-resume`."""
    whole, expected = resume.length(base / "measure")
    print(f"{args.name}, seed {args.seed}, an undisturbed run takes {whole:.3f} s", flush=True)
    moments = resume.moments(3 * args.count, args.seed)
    return kills(args, base, moments, lambda root, moment: resume.suffer(root, moment, whole, expected))


def kafka_lives(args: argparse.Namespace, base: Path) -> int:
    """The matrices of `kafka` and `kafka-state`: lives of ten faults each."""
    print(f"{args.name}, seed {args.seed}; --seed {args.seed} --case K replays one", flush=True)
    wrong = 0
    numbers = range(1, -(-args.count // kafka.FAULTS) + 1) if args.only is None else [args.only]
    with KafkaCluster(kafka.BROKERS) as cluster:
        for number in numbers:
            root = base / str(number)
            try:
                if args.name == kafka.NAME:
                    print(kafka.suffer(root, cluster, kafka.life(number, args.seed)), flush=True)
                else:
                    print(kafka_state.suffer(root, cluster, kafka_state.life(number, args.seed)), flush=True)
                shutil.rmtree(root)
            except FaultError as error:
                wrong += 1
                print(f"WRONG: {error}", flush=True)
    print(f"{args.name}, seed {args.seed}: {len(numbers) * kafka.FAULTS} faults, {wrong} lives wrong")
    return ended(base, wrong)


def random_cases(name: str, count: int, seed: int, only: int | None, workers: int) -> int:
    """Random cases of one machine; those that were right are counted by what became of them."""
    machine = MACHINES[name]
    print(f"{name}, seed {seed}; --seed {seed} --case K replays one", flush=True)
    # Nothing is lost there by a process that is killed, and nothing waits for a disk.
    memory = Path("/dev/shm")
    base = Path(tempfile.mkdtemp(prefix="faults-", dir=memory if memory.is_dir() else None))
    outcomes: Counter[str] = Counter()
    began = time.monotonic()
    numbers = range(1, count + 1) if only is None else [only]
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        for number, (outcome, error) in zip(
            numbers, pool.map(partial(attempt, machine.case, machine.suffer, base, seed), numbers), strict=True
        ):
            outcomes[outcome] += 1
            if error is not None:
                print(f"{machine.case(number, seed)} WRONG: {error}", flush=True)
    for outcome, cases in outcomes.most_common():
        print(f"{cases:6,} {outcome}")
    took = time.monotonic() - began
    print(f"{name}, seed {seed}: {len(numbers):,} cases, {outcomes['WRONG']} wrong, {took:.0f} s")
    return ended(base, outcomes["WRONG"])


if __name__ == "__main__":
    sys.exit(main())
