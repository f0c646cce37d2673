"""A Ray cluster of two nodes with one core each, to which this process is connected."""

from __future__ import annotations

import gc
import socketserver
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from support.servers import free_port

SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""The first bytes that a gRPC server sends on a new connection: an empty HTTP/2 SETTINGS frame."""
TESTS = Path(__file__).resolve().parents[1]
QUICK = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 2,
    "worker_niceness": 0,
}
"""The cluster notices a dead node within a second. By default, Ray needs about 15 seconds."""


@dataclass
class RayCluster:
    """The Ray cluster for a test session. Tests may kill worker nodes if they replace them."""

    cluster: Any
    client_port: int
    nodes: list[Any] = field(default_factory=list)

    def add_node(self) -> None:
        with _unclosed_files_of_ray():
            self.nodes.append(self.cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20))

    def kill_node(self) -> None:
        """Kill the oldest worker node's raylet with SIGKILL, and wait until the cluster reports the node as dead."""
        with _unclosed_files_of_ray():
            self.cluster.remove_node(self.nodes.pop(0), allow_graceful=False)


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """Run a server that answers every connection with these bytes but is not a Ray cluster; yield its address."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(100)
            self.request.sendall(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def running() -> Iterator[RayCluster]:
    """Start a cluster whose head runs no tasks, and connect this process to it."""
    with _unclosed_files_of_ray(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(TESTS))  # the nodes import `support.tasks`
        started = _start()
    try:
        yield started
    finally:
        import ray

        with _unclosed_files_of_ray():
            ray.shutdown()
            started.cluster.shutdown()


def _start() -> RayCluster:
    import rowcast.adapters.ray  # noqa: F401, I001 - turns off usage reports before Ray is imported
    import ray
    from ray.cluster_utils import Cluster

    port = free_port()
    memory = 200 * 2**20
    head = {
        "num_cpus": 0,
        "ray_client_server_port": port,
        "include_dashboard": False,
        "object_store_memory": memory,
        "_system_config": QUICK,
    }
    started = RayCluster(Cluster(initialize_head=True, head_node_args=head), port)
    started.add_node()
    started.add_node()
    ray.init(address=started.cluster.address, log_to_driver=False, logging_level="ERROR")
    started.cluster.wait_for_nodes()
    return started


@contextmanager
def _unclosed_files_of_ray() -> Iterator[None]:
    """Ignore files that Ray leaves open when it starts or stops processes. The next test would fail otherwise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()
