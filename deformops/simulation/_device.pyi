from typing import TypedDict

class Place:
    function: str
    file: str
    line: int

class Failure:
    kind: str
    message: str
    op: str
    kernel: str
    in_thread: bool
    block: tuple[int, int, int]
    thread: tuple[int, int, int]
    stack: list[Place]
    seed: int
    launch: int

class KernelError(RuntimeError):
    failure: Failure

class Instruction(TypedDict):
    space: str
    motion: str
    places: list[str]
    requests: int
    partial: int
    threads: int
    bytes: int
    transactions: int
    ideal: int

class Launch:
    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    static_shared_bytes: int
    dynamic_shared_bytes: int
    seed: int
    number: int
    threads: int
    switches: int
    block_barriers: int
    warp_collectives: int
    atomics: int
    async_copies: int
    multiplications: int
    bytes_read: int
    bytes_written: int
    profiled: bool
    sectors_read: int
    sectors_written: int
    block_sectors_read: int
    block_sectors_written: int
    instructions: list[Instruction]

class Options(TypedDict):
    seed: int
    preemption: float
    allow_early_exit: bool
    profile: bool

def configure(*, seed: int, preemption: float, allow_early_exit: bool, profile: bool) -> None: ...
def options() -> Options: ...
def launches() -> list[Launch]: ...
def clear_launches() -> None: ...
def last_failure() -> Failure | None: ...
