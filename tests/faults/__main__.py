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
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from tests.faults import outputs, resume, streams, syncs, tables
from tests.faults.matrix import NAMES, ROWS, SHAPES, VICTIMS, FaultError, attempt, faults, lives, suffer
from tests.support import preloaded

MACHINES = {machine.NAME: machine for machine in (streams, outputs, tables, syncs)}
"""Random cases that are compared with a model."""


def main() -> int:
    """Run the matrix; 1 if anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Kill processes at random moments.")
    parser.add_argument("name", choices=(*NAMES, resume.NAME, *MACHINES))
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
        return kill_and_resume(base, args.count, args.seed, args.only)
    if args.lives:
        life = dict(zip(VICTIMS, map(float, args.lives.split(",")), strict=True))
    else:
        measured = [lives(base / f"measure{n}", args.rows, args.shape) for n in range(2)]
        life = {victim: max(run[victim] for run in measured) for victim in VICTIMS}
    told = ",".join(f"{life[victim]:.3f}" for victim in VICTIMS)
    print(f"{args.name}, seed {args.seed}, --shape {args.shape} --lives {told}", flush=True)
    wrong = late = done = 0
    for fault in faults(args.name, 3 * args.count, args.seed):
        if args.only not in (None, fault.number):
            continue
        if done == args.count:
            break
        root = base / str(fault.number)
        try:
            outcome = suffer(root, fault, life[fault.victim], args.rows, args.shape)
        except FaultError as error:
            done += 1
            wrong += 1
            print(f"#{fault.number} WRONG: {error}", flush=True)
            continue
        late += outcome.late
        done += not outcome.late
        print(outcome, flush=True)
        shutil.rmtree(root)
    print(f"{args.name}, seed {args.seed}: {done} faults, {wrong} wrong; {late} more came too late")
    if wrong:
        print(f"their projects are kept in {base}")
    else:
        shutil.rmtree(base)
    return 1 if wrong else 0


def kill_and_resume(base: Path, count: int, seed: int, only: int | None) -> int:
    """The matrix of `kill-resume`."""
    whole, expected = resume.length(base / "measure")
    print(f"{resume.NAME}, seed {seed}, an undisturbed run takes {whole:.3f} s", flush=True)
    wrong = late = done = 0
    for moment in resume.moments(3 * count, seed):
        if only not in (None, moment.number):
            continue
        if done == count:
            break
        root = base / str(moment.number)
        try:
            told = resume.suffer(root, moment, whole, expected)
        except FaultError as error:
            done += 1
            wrong += 1
            print(f"#{moment.number} WRONG: {error}", flush=True)
            continue
        late += "too late" in told
        done += "too late" not in told
        print(told, flush=True)
        shutil.rmtree(root)
    print(f"{resume.NAME}, seed {seed}: {done} faults, {wrong} wrong; {late} more came too late")
    if wrong:
        print(f"their projects are kept in {base}")
    else:
        shutil.rmtree(base)
    return 1 if wrong else 0


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
    if outcomes["WRONG"]:
        print(f"their projects are kept in {base}")
    else:
        shutil.rmtree(base)
    return 1 if outcomes["WRONG"] else 0


if __name__ == "__main__":
    sys.exit(main())
