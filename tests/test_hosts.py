import jax
import pytest

from robust_jax import hosts


@pytest.fixture
def joined(monkeypatch):
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args: calls.append(args))
    for name in hosts.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return calls


def set_variables(monkeypatch, *values):
    for name, value in zip(hosts.VARIABLES, values, strict=True):
        if value is not None:
            monkeypatch.setenv(name, value)


def test_plain_hosts_are_told_by_variables(joined, monkeypatch):
    set_variables(monkeypatch, "first:1234", "4", "3")
    hosts.connect()
    assert joined == [("first:1234", 4, 3)]


def test_clusters_tell_jax_themselves(joined):
    hosts.connect()
    assert joined == [()]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("first:1234", None, "0"), r"hosts are told by .*; got \{.*\}; set them to HOST:PORT"),
        (("first", "2", "0"), r"hosts are told by"),
        (("first:1", "two", "0"), r"hosts are told by"),
        (("first:1", "2", "2"), r"ROBUST_JAX_PROCESS counts from 0; got 2 of 2 hosts; use 0 to 1"),
    ],
)
def test_variables_that_do_not_fit(joined, monkeypatch, values, message):
    set_variables(monkeypatch, *values)
    with pytest.raises(ValueError, match=message):
        hosts.connect()
    assert joined == []


def test_no_cluster(joined, monkeypatch):
    def initialize():
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(ValueError, match=r"no other hosts; got --distributed outside .*leave --d"):
        hosts.connect()


@pytest.mark.parametrize(("size", "count"), [(10, 3), (2, 4), (0, 2), (7, 1)])
def test_shares_cover_everything_once(monkeypatch, size, count):
    monkeypatch.setattr(hosts, "count", lambda: count)
    shares = []
    for index in range(count):
        monkeypatch.setattr(hosts, "index", lambda index=index: index)
        shares.append(list(hosts.share(range(size))))
    assert [item for part in shares for item in part] == list(range(size))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_the_first_host_speaks_alone(monkeypatch, capsys):
    for index in (0, 1):
        monkeypatch.setattr(hosts, "index", lambda index=index: index)
        with hosts.one_speaker():
            print("host", index)
    assert capsys.readouterr().out == "host 0\n"
