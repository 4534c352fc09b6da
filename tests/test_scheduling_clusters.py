"""Where work runs: settings that are refused, schedulers that run already, TLS, and SLURM."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timedelta, timezone
from functools import partial
from itertools import chain, islice
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from distributed import Client

from pipeline.errors import BackendError, ConfigError, ResourceError
from pipeline.scheduling import SlurmSettings, Where, dask_worker, run_tasks
from pipeline.scheduling import existing_cluster as existing

TESTS = Path(__file__).parent
FAST_RESTARTS = {"DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD": "forkserver"}


def run(tasks, open_worker, **where):
    """Run tasks that are not to be split; one that is given up is its own negative."""
    return run_tasks(
        tasks,
        open_worker,
        where=Where(**where),
        split=lambda task: [task],
        give_up=lambda task: -task,
    )


@contextmanager
def telling(number):
    """Work that tells the task's square, the worker's number, and where it runs."""

    def work(task):
        time.sleep(0.05)
        return task * task, number, os.getpid()

    yield work


@contextmanager
def closing(folder, number):
    opened = Path(folder) / f"opened-{os.getpid()}"
    opened.touch()
    yield lambda task: task * task
    opened.rename(Path(folder) / f"closed-{os.getpid()}")


@contextmanager
def killing(folder, number):
    """Task 5 kills every worker; the first task 3 kills one."""

    def work(task):
        marker = Path(folder) / "killed"
        if task == 5 or (task == 3 and not marker.exists()):
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return task

    yield work


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"workers": -1}, "workers=-1 .* at least 0"),
        ({"hands": 0}, "hands=0 .* at least 1"),
        ({"workers": 2, "scheduler": "tcp://127.0.0.1:1"}, "workers and scheduler .*leave out"),
        ({"workers": 2, "slurm": SlurmSettings()}, "workers and slurm .*one place"),
        ({"scheduler": "tcp://10.0.0.7:8786"}, "tcp://10.0.0.7:8786.*tls://10.0.0.7:8786 --tls-ca"),
        (
            {"scheduler": "tcp://node7:8786"},
            "without encryption.*pass --scheduler tls://node7:8786",
        ),
        ({"scheduler": "tcp://0.0.0.0:8786"}, "without encryption"),
        ({"scheduler": "localhost:8786"}, "no address.*tcp://127.0.0.1:8786"),
        ({"scheduler": "tcp://127.0.0.1"}, "no address"),
        ({"scheduler": "http://127.0.0.1:8786"}, "no address"),
        ({"scheduler": "tcp://127.0.0.1:port"}, "no address"),
        ({"scheduler": "tls://node7:8786"}, "0 of 3 TLS files.*--tls-ca FILE"),
        ({"scheduler": "tls://h:1", "tls_ca": "a", "tls_cert": "b"}, "2 of 3 TLS files"),
        (
            {"scheduler": "tls://h:1", "tls_ca": "a", "tls_cert": "b", "tls_key": "c"},
            "'a' is absent",
        ),
        ({"tls_ca": "ca.pem"}, "ca.pem: TLS files without a scheduler"),
        (
            {"scheduler": "tcp://127.0.0.1:8786", "tls_ca": "ca.pem"},
            "TLS files, which tcp does not use; .* pass --scheduler tls://127.0.0.1:8786, or leave",
        ),
    ],
)
def test_where_refuses(settings, message):
    paths = {k: Path(v) if k.startswith("tls") else v for k, v in settings.items()}
    with pytest.raises(ConfigError, match=message):
        Where(**paths)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "[::1]"])
def test_where_takes_a_plain_scheduler_of_this_machine(host):
    assert Where(scheduler=f"tcp://{host}:8786").scheduler == f"tcp://{host}:8786"


@pytest.mark.parametrize(
    ("settings", "message"), [({"workers": 0}, "slurm workers=0"), ({"gpus": -1}, "slurm gpus=-1")]
)
def test_slurm_settings_refuse(settings, message):
    with pytest.raises(ConfigError, match=message):
        SlurmSettings(**settings)


def dask_process(stack, command, *arguments, path=(TESTS.parent, TESTS)):
    process = subprocess.Popen(
        [sys.executable, "-m", f"distributed.cli.dask_{command}", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)), **FAST_RESTARTS},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    stack.callback(kill_group, process)
    return process


def kill_group(process):
    with_children = [process, *psutil.Process(process.pid).children(recursive=True)]
    for one in with_children:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait()


@contextmanager
def scheduler(folder, host, *, workers, options=(), protocol="tcp"):
    """A dask scheduler with workers of 2 threads; gives its address."""
    folder.mkdir()
    file = folder / "scheduler.json"
    common = ["--host", host, "--protocol", protocol, "--dashboard-address", "127.0.0.1:0"]
    common += options
    with ExitStack() as stack:
        dask_process(stack, "scheduler", "--port", "0", "--scheduler-file", str(file), *common)
        while not file.exists() or not file.read_text():
            time.sleep(0.02)
        address = json.loads(file.read_text())["address"]
        if workers:
            nodes = ["--nworkers", str(workers), "--nthreads", "2", "--memory-limit", "0"]
            nodes += ["--local-directory", str(folder)]
            dask_process(stack, "worker", address, *nodes, *common)
        yield address


def test_run_tasks_uses_a_scheduler_that_runs_already_and_leaves_it_as_it_was(tmp_path):
    folder = tmp_path / "opened"
    folder.mkdir()
    with scheduler(tmp_path / "dask", "127.0.0.1", workers=2) as address:
        for _ in range(2):
            results = list(run(range(20), partial(closing, folder), scheduler=address))
            assert sorted(results) == [n * n for n in range(20)]
        assert list(folder.glob("closed-*"))
        assert not list(folder.glob("opened-*"))
        told = list(run(range(20), telling, scheduler=address, hands=2))
    # Their names are no numbers: they are numbered in the order of their host.
    assert len({(number, pid) for _, number, pid in told}) == 2
    assert {number for _, number, _ in told} == {0, 1}


def test_run_tasks_works_on_a_worker_that_dask_has_paused_for_memory(tmp_path, monkeypatch):
    def state(dask_worker):
        return dask_worker.status.name, dask_worker.memory_manager.memory_pause_fraction

    monkeypatch.setenv("DASK_DISTRIBUTED__WORKER__MEMORY__TERMINATE", "False")
    with scheduler(tmp_path / "dask", "127.0.0.1", workers=0) as address, ExitStack() as stack:
        nodes = ["--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0"]
        nodes += ["--memory-limit", "40MiB", "--local-directory", str(tmp_path)]
        dask_process(stack, "worker", address, *nodes)
        client = stack.enter_context(Client(address, set_as_default=False))
        client.wait_for_workers(1)
        while set(client.run(state).values()) != {("paused", 0.8)}:
            time.sleep(0.05)
        results = list(run(range(5), telling, scheduler=address))
        assert sorted(square for square, _, _ in results) == [0, 1, 4, 9, 16]
        assert {fraction for _, fraction in client.run(state).values()} == {0.8}


KILLED_RUN = """
import os, signal, sys
from functools import partial
import test_scheduling_clusters as tests

work = partial(tests.closing, sys.argv[1])
for _ in tests.run(range(20), work, scheduler=sys.argv[2]):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_run_tasks_closes_what_a_killed_run_left_open_and_nothing_of_one_that_lives(tmp_path):
    killed, alive, last = folders = [tmp_path / name for name in ("killed", "alive", "last")]
    for folder in folders:
        folder.mkdir()
    with scheduler(tmp_path / "dask", "127.0.0.1", workers=1) as address:
        environment = {**os.environ, "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"}
        command = [sys.executable, "-c", KILLED_RUN, str(killed), address]
        assert subprocess.run(command, env=environment).returncode == -signal.SIGKILL
        assert [path.name[:6] for path in killed.iterdir()] == ["opened"]
        results = run(range(20), partial(closing, alive), scheduler=address)
        next(results)
        assert sorted(run(range(3), partial(closing, last), scheduler=address)) == [0, 1, 4]
        assert [path.name[:6] for path in killed.iterdir()] == ["closed"]
        assert [path.name[:6] for path in alive.iterdir()] == ["opened"]
        assert len(list(results)) == 19


def test_run_tasks_keeps_its_own_book_of_losses_on_a_scheduler_with_other_settings(tmp_path):
    with scheduler(tmp_path / "dask", "127.0.0.1", workers=2) as address:
        done = list(run(range(8), partial(killing, tmp_path), scheduler=address))
    assert sorted(done) == [-5, 0, 1, 2, 3, 4, 6, 7]


def test_run_tasks_divides_tasks_over_the_schedulers_of_two_machines_in_turn(tmp_path):
    tasks = iter(range(30))
    told = []
    with ExitStack() as stack:
        addresses = [
            stack.enter_context(scheduler(tmp_path / host, host, workers=2))
            for host in ("127.0.0.1", "127.0.0.2")
        ]
        for address in addresses:
            portion = list(islice(tasks, 15))
            told.append(list(run(portion, telling, scheduler=address)))
    assert sorted(square for square, _, _ in chain(*told)) == [n * n for n in range(30)]
    pids = [{pid for _, _, pid in part} for part in told]
    assert [len(part) for part in pids] == [2, 2]
    assert not pids[0] & pids[1]


def test_run_tasks_works_on_the_workers_of_two_machines_at_once(tmp_path):
    with scheduler(tmp_path / "dask", "127.0.0.1", workers=1) as address, ExitStack() as stack:
        nodes = ["--nthreads", "2", "--memory-limit", "0", "--local-directory", str(tmp_path)]
        other = ["--host", "127.0.0.2", "--dashboard-address", "127.0.0.1:0"]
        dask_process(stack, "worker", address, *nodes, *other)
        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(2)
        told = list(run(range(20), telling, scheduler=address, hands=1))
    assert sorted(square for square, _, _ in told) == [n * n for n in range(20)]
    assert len({pid for _, _, pid in told}) == 2
    assert {number for _, number, _ in told} == {0}


def test_run_tasks_says_that_no_scheduler_answers(monkeypatch):
    monkeypatch.setattr(existing, "CONNECT_SECONDS", 1.0)
    with pytest.raises(ConfigError, match="no dask scheduler answers at tcp://127.0.0.1:1 "):
        list(run([1], telling, scheduler="tcp://127.0.0.1:1"))


def test_run_tasks_says_that_a_scheduler_has_no_worker(tmp_path, monkeypatch):
    monkeypatch.setattr(existing, "PATIENCE_SECONDS", 1.0)
    with (
        scheduler(tmp_path / "dask", "127.0.0.1", workers=0) as address,
        pytest.raises(ResourceError, match=f"no worker for 1 s at {address}; at least 1"),
    ):
        list(run([1], telling, scheduler=address))


def test_run_tasks_says_that_workers_lack_what_is_to_run_there(tmp_path):
    with scheduler(tmp_path / "dask", "127.0.0.1", workers=0) as address, ExitStack() as stack:
        nodes = ["--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0"]
        dask_process(stack, "worker", address, *nodes, path=[TESTS.parent])
        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(1)
        with pytest.raises(ConfigError, match=f"workers of {address} lack .*{__name__}.*i2st was"):
            list(run([1], telling, scheduler=address))


def test_opened_worker_refuses_to_join_with_another_i2st(monkeypatch):
    plugin = dask_worker.OpenedWorker("name", telling, shielded=False)
    monkeypatch.setattr(dask_worker, "__version__", "0.0.1")
    with pytest.raises(ConfigError, match="tcp://w:1 has i2st 0.0.1; .* was needed"):
        plugin.setup(SimpleNamespace(address="tcp://w:1"))


def test_run_tasks_says_that_the_scheduler_is_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(existing, "CONNECT_SECONDS", 2.0)
    with scheduler(tmp_path / "dask", "127.0.0.1", workers=1) as address:
        results = run(range(10000), telling, scheduler=address)
        next(results)
        for process in psutil.process_iter(["cmdline"]):
            if str(tmp_path / "dask" / "scheduler.json") in (process.info["cmdline"] or []):
                process.kill()
        with pytest.raises(ResourceError, match=f"the scheduler at {address} is gone"):
            list(results)


def test_existing_cluster_refuses_other_versions():
    def versions(python="3.11.7.final.0", dask="2026.8.0"):
        return {"packages": {"python": python, "dask": dask, "distributed": "2026.8.0"}}

    def told(scheduler, **workers):
        return {"client": versions(), "scheduler": scheduler, "workers": workers}

    check = partial(existing._check_versions, "tcp://127.0.0.1:8786")
    check(told(versions(python="3.11.2.final.0"), w=versions()))
    with pytest.raises(ConfigError, match=r"the scheduler at .* runs Python 3.10, .*Python 3.11, "):
        check(told(versions(python="3.10.1.final.0")))
    with pytest.raises(ConfigError, match=r"tcp://w:1 at .* dask 2024.8.0, .* dask 2026.8.0, "):
        check(told(versions(), **{"tcp://w:1": versions(dask="2024.8.0")}))


def write_certificates(folder):
    """A key that signed itself, for every role; gives the options that name the files."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "i2st-tests")])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    folder.mkdir(exist_ok=True)
    (folder / "key.pem").write_bytes(key.private_bytes(pem, *private))
    (folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
    return {
        "tls_ca": folder / "cert.pem",
        "tls_cert": folder / "cert.pem",
        "tls_key": folder / "key.pem",
    }


def test_run_tasks_speaks_tls_with_the_files_it_is_given_and_with_no_others(tmp_path, monkeypatch):
    monkeypatch.setattr(existing, "CONNECT_SECONDS", 5.0)
    files = write_certificates(tmp_path / "keys")
    options = ["--tls-ca-file", str(files["tls_ca"])]
    options += ["--tls-cert", str(files["tls_cert"]), "--tls-key", str(files["tls_key"])]
    dask = scheduler(tmp_path / "dask", "127.0.0.1", workers=2, options=options, protocol="tls")
    with dask as address:
        assert address.startswith("tls://127.0.0.1:")
        results = sorted(
            square for square, _, _ in run(range(9), telling, scheduler=address, **files)
        )
        assert results == [n * n for n in range(9)]
        others = write_certificates(tmp_path / "others")
        with pytest.raises(ConfigError, match="no dask scheduler answers at tls://.*TLS files"):
            list(run(range(9), telling, scheduler=address, **others))
        plain = address.replace("tls", "tcp")
        with pytest.raises(ConfigError, match="no dask scheduler answers at tcp://"):
            list(run(range(9), telling, scheduler=plain))


def num_open_to_others(pid):
    """Ports of a process and its children that listen beyond this machine."""
    processes = [psutil.Process(pid)]
    if pid != os.getpid():
        processes += processes[0].children(recursive=True)
    sockets = chain(*(process.net_connections("inet") for process in processes))
    listening = [c.laddr for c in sockets if c.status == "LISTEN"]
    return len({address.port for address in listening if address.ip != "127.0.0.1"})


FAKE_SBATCH = """#!/usr/bin/env bash
# Accepts a job, and runs it on this machine.
here=$(dirname "$0")
if [ "$1" = --test-only ]; then
    if grep -q forbidden "$2"; then echo "sbatch: error: invalid partition" >&2; exit 1; fi
    exit 0
fi
cp "$1" "$here/$$.job"
setsid bash "$here/$$.job" > "$here/$$.log" 2>&1 &
echo $! > "$here/$$.pid"
echo "Submitted batch job $$"
"""

FAKE_SCANCEL = """#!/usr/bin/env bash
here=$(dirname "$0")
touch "$here/$1.cancelled"
kill -TERM -- -$(cat "$here/$1.pid") 2>/dev/null
exit 0
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A folder on PATH with an sbatch that runs its jobs here; what is left of them is killed."""
    pytest.importorskip("dask_jobqueue")
    pytest.importorskip("cryptography")
    folder = tmp_path / "slurm-bin"
    folder.mkdir()
    for name, text in (("sbatch", FAKE_SBATCH), ("scancel", FAKE_SCANCEL)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS.parent), str(TESTS)]))
    yield folder
    for file in folder.glob("*.pid"):
        subprocess.run(["kill", "-KILL", "--", f"-{file.read_text().strip()}"], check=False)


def test_run_tasks_submits_slurm_jobs_speaks_tls_with_them_and_cancels_them(slurm, tmp_path):
    shared = tmp_path / "shared"
    settings = SlurmSettings(
        workers=2, cores=6, gpus=1, partition="gpu", options=("--constraint=a100",), folder=shared
    )
    results = run(range(40), telling, slurm=settings, hands=2)
    told = [next(results)]
    keys = list(shared.glob("keys-*/*.pem"))
    assert len(keys) == 3
    assert all(path.stat().st_mode & 0o077 == 0 for path in keys)
    # Only what is encrypted listens to other machines: scheduler, worker and its nanny.
    assert num_open_to_others(os.getpid()) == 1
    for job in slurm.glob("*.pid"):
        assert num_open_to_others(int(job.read_text())) <= 2
    told += results
    assert sorted(square for square, _, _ in told) == [n * n for n in range(40)]
    script = next(slurm.glob("*.job")).read_text()
    for directive in ("-p gpu", "--cpus-per-task=6", "--gres=gpu:1", "--constraint=a100"):
        assert f"#SBATCH {directive}\n" in script
    assert "tls://" in script
    assert "--nthreads 2 " in script
    assert len(list(slurm.glob("*.job"))) == len(list(slurm.glob("*.cancelled"))) == 2
    assert not [path for path in shared.iterdir() if path.suffix not in {".out", ".err"}]


def test_run_tasks_says_why_slurm_refuses_the_job(slurm, tmp_path):
    settings = SlurmSettings(partition="forbidden", folder=tmp_path / "shared")
    with pytest.raises(
        BackendError, match="refuses the job .*invalid partition.*--slurm-partition"
    ):
        list(run([1], telling, slurm=settings))


def test_run_tasks_says_that_slurm_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BackendError, match="sbatch is not on this machine's PATH.*--workers N"):
        list(run([1], telling, slurm=SlurmSettings(folder=tmp_path)))
    assert shutil.which("sbatch") is None


def test_run_tasks_says_which_package_slurm_needs(slurm, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "dask_jobqueue.slurm", None)
    with pytest.raises(BackendError, match=r"pip install 'i2st\[slurm\]'"):
        list(run([1], telling, slurm=SlurmSettings(folder=tmp_path)))
