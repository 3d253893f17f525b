"""Role host_tuning: its table, what follows from what is seen on a host, and the hosts of the virtual lab."""

import contextlib
import copy
import importlib.util
import json
import re
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lab import VirtualLab

ROOT = Path(__file__).parents[2]
ROLE = ROOT / "roles/host_tuning"


def load(path: str) -> ModuleType:
    """A plugin or module of the role, which is in no package."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROLE / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tuning = load("filter_plugins/host_tuning.py")
looking = load("library/wslab_sysctl_seen.py")
DEFAULTS = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
INTERNAL = yaml.safe_load((ROLE / "vars/main.yml").read_text())
PATHS = INTERNAL["__host_tuning_paths"]
REFUSED = INTERNAL["__host_tuning_refused"]
NUMBERS = {"host_tuning_connections": [100_000, 1, 100_000_000], "host_tuning_open_files": [1_000_000, 1024, 1 << 30]}
OPEN_FILES = 1_000_000

# What the templates of the defaults come to.
VALUES = {
    "net.ipv4.ip_local_reserved_ports": "3000,3001,8000,9090,9091,9092,9100",
    "net.ipv4.tcp_rmem": 1_048_576,
    "net.ipv4.tcp_wmem": 1_048_576,
    "net.netfilter.nf_conntrack_max": 200_000,
}
TABLE = [
    {**setting, "value": VALUES.get(setting["key"], setting["value"])} for setting in DEFAULTS["host_tuning_sysctls"]
]

# A Debian 12 machine after its boot; systemd has raised the two of fs.
STOCK = {
    "fs.nr_open": "1073741816",
    "fs.file-max": "9223372036854775807",
    "net.core.somaxconn": "4096",
    "net.ipv4.tcp_max_syn_backlog": "1024",
    "net.ipv4.tcp_notsent_lowat": "4294967295",
    "net.ipv4.tcp_slow_start_after_idle": "1",
    "net.ipv4.ip_local_port_range": "32768 60999",
    "net.ipv4.ip_local_reserved_ports": "",
    "net.ipv4.tcp_tw_reuse": "2",
    "net.ipv4.tcp_rmem": "4096 131072 6291456",
    "net.ipv4.tcp_wmem": "4096 16384 4194304",
    "net.ipv4.tcp_keepalive_time": "7200",
}
SERVER = {
    "net.core.somaxconn": "65535",
    "net.ipv4.tcp_max_syn_backlog": "65535",
    "net.ipv4.tcp_notsent_lowat": "131072",
    "net.ipv4.tcp_slow_start_after_idle": "0",
    "net.ipv4.tcp_rmem": "4096 131072 1048576",
    "net.ipv4.tcp_wmem": "4096 16384 1048576",
}
GENERATOR = {
    "net.ipv4.ip_local_port_range": "1024 65535",
    "net.ipv4.ip_local_reserved_ports": "3000-3001,8000,9090-9092,9100",
    "net.ipv4.tcp_tw_reuse": "1",
    "net.ipv4.tcp_rmem": "4096 131072 1048576",
    "net.ipv4.tcp_wmem": "4096 16384 1048576",
}


class Host:
    """A machine as the role sees it: values in force, files, and the record; `run` is what the role's tasks do."""

    def __init__(self, values: dict[str, str] | None = None) -> None:
        self.defaults = dict(STOCK if values is None else values)  # what the kernel comes up with
        self.values = dict(self.defaults)
        self.kernel = "6.1"
        self.container = ""
        self.read_only: list[str] = []
        self.settable = OPEN_FILES
        self.files: dict[
            str, Any
        ] = {}  # PATH -> what the module says of a file that is not ours, or a mapping of settings
        self.record: dict[str, Any] | None = None
        self.others: dict[str, list[list[str]]] = {}

    @property
    def seen(self) -> dict[str, Any]:
        ours = [path for path in PATHS.values() if isinstance(self.files.get(path), Ours)]
        return copy.deepcopy({
            "values": self.values, "read_only": self.read_only, "container": self.container, "kernel": self.kernel,
            "pages": 1 << 20, "boot": self.others, "marked": ours, "record": self.record, "record_folder": True,
            "ours": dict(self.files[PATHS["sysctl"]]) if PATHS["sysctl"] in ours else {},
            "files": {path: self.files.get(path) for path in PATHS.values() if path not in ours},
            "open_files": {"hard": 524_288, "settable": self.settable, "login": None},
        })  # fmt: skip

    def plan(self, profile: str = "tuned", role: str = "server", **extra: object) -> dict[str, Any]:
        named = {key.replace("__", "."): value for key, value in extra.items()}
        plan = tuning.host_tuning_plan(self.seen, TABLE, named, role, profile, OPEN_FILES, PATHS)
        assert isinstance(plan, dict)
        return plan

    def run(self, profile: str = "tuned", role: str = "server", **extra: object) -> bool:
        """What main.yml does; whether anything changed."""
        plan = self.plan(profile, role, **extra)
        before = copy.deepcopy((self.values, self.files, self.record))
        if plan["remember"] is not None:
            self.record = plan["remember"]
        for kind, path in plan["files"].items():
            self.files[path] = Ours({item["key"]: item["value"] for item in plan["write"]} if kind == "sysctl" else {})
        for item in plan["give_back"]:
            self.files.pop(item["path"])
            if item["content"] is not None:
                self.files[item["path"]] = {"content": item["content"], "mode": item["mode"]}
        self.values.update({key: value for key, value in plan["pending"].items() if key in self.values})
        again = self.plan(profile, role, **extra)
        assert (again["unmet"], again["give_back"], again["remember"]) == ([], [], None)
        if again["forget"]:
            self.record = again["record"]
        return before != (self.values, self.files, self.record)

    def boot(self) -> None:
        self.values = dict(self.defaults)
        ours = self.files.get(PATHS["sysctl"])
        self.values.update({key: value for key, value in (ours or {}).items() if key in self.values})


class Ours(dict[str, str]):
    """A file that the role has written: the settings in it."""


def written(plan: dict[str, Any]) -> dict[str, str]:
    return {item["key"]: item["value"] for item in plan["write"]}


# --- the table --------------------------------------------------------------------------------------------------------


def test_every_setting_has_a_reason_a_kind_and_hosts_and_comes_once() -> None:
    keys = [setting["key"] for setting in TABLE]
    assert len(set(keys)) == len(keys) == 12
    for setting in TABLE:
        assert set(setting) == {"key", "kind", "value", "for", "reason"}
        assert setting["kind"] in tuning.KINDS
        assert setting["for"] in (["server"], ["load_generator"], ["server", "load_generator"])
        assert len(setting["reason"].split()) >= 5
        assert "\n" not in setting["reason"]


def test_settings_that_only_harm_are_neither_in_the_table_nor_accepted_from_a_user() -> None:
    harmful = {
        "net.ipv4.tcp_tw_recycle": 1, "net.ipv4.tcp_timestamps": 0, "net.ipv4.tcp_sack": 0,
        "net.ipv4.tcp_fin_timeout": 10, "net.ipv4.tcp_max_tw_buckets": 5000, "net.ipv4.tcp_max_orphans": 100,
        "net.ipv4.tcp_syncookies": 0, "net.ipv4.tcp_mem": "1073741824 1073741824 2147483648",
        "vm.max_map_count": 262144, "fs.file-max": 100000, "fs.nr_open": 100000,
    }  # fmt: skip
    sizes = {"fs.file-max", "fs.nr_open"}  # in the table, but only as what is never lowered
    assert {setting["key"] for setting in TABLE} & set(harmful) == sizes
    assert {setting["kind"] for setting in TABLE if setting["key"] in sizes} == {"at_least"}
    assert {rule["key"] for rule in REFUSED} == set(harmful)
    host = Host({**STOCK, **dict.fromkeys(harmful, "262144"), "fs.file-max": "1048576", "fs.nr_open": "1048576"})
    for key, value in harmful.items():
        (fault,) = tuning.host_tuning_faults(TABLE, {key: value}, REFUSED, host.seen, NUMBERS)
        (reason,) = [rule["reason"] for rule in REFUSED if rule["key"] == key]
        assert fault == f"host_tuning_extra, {key}, is {value!r}: refused, since {reason}; fix: leave it out"
        line = {"key": key, "kind": "set", "value": value, "for": ["server"], "reason": "old advice"}
        assert tuning.host_tuning_faults([line], {}, REFUSED, host.seen, NUMBERS)


def test_the_weaker_forms_of_refused_settings_are_accepted() -> None:
    keys = ("timestamps", "sack", "syncookies", "max_tw_buckets", "max_orphans", "mem")
    host = Host({**STOCK, **{f"net.ipv4.tcp_{key}": "4096" for key in keys}})
    fine = {
        "net.ipv4.tcp_timestamps": 1, "net.ipv4.tcp_sack": 1, "net.ipv4.tcp_syncookies": 2,
        "net.ipv4.tcp_max_tw_buckets": 524288, "net.ipv4.tcp_max_orphans": "4096",
        "net.ipv4.tcp_mem": "90000 120000 180000",
    }  # fmt: skip
    assert tuning.host_tuning_faults(TABLE, fine, REFUSED, host.seen, NUMBERS) == []


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("net.core.somaxcon", 1, "is no setting of this kernel"),
        ("/etc/passwd", 1, "is no key"),
        ("net.core.somaxconn = 1\nkernel.sysrq", 1, "is no key"),
        ("somaxconn", 1, "is no key"),
        ("net.core.somaxconn", True, "is True; wanted a number or one line"),
        ("net.core.somaxconn", [1], "is [1]; wanted a number or one line"),
        ("net.core.somaxconn", None, "is None; wanted a number or one line"),
        ("net.core.somaxconn", "1\nkernel.sysrq = 1", "wanted a number or one line"),
    ],
)
def test_a_setting_of_the_user_that_is_none_is_refused_by_name(key: str, value: object, said: str) -> None:
    (fault,) = tuning.host_tuning_faults(TABLE, {key: value}, REFUSED, Host().seen, NUMBERS)
    assert fault.startswith(f"host_tuning_extra, {key}, ")
    assert said in fault


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"kind": "atleast"}, "host_tuning_sysctls[0].kind is 'atleast', wanted one of set, at_least, cap, include"),
        ({"reason": ""}, "host_tuning_sysctls[0] has no reason"),
        ({"value": "many"}, "host_tuning_sysctls[0], net.core.somaxconn, is 'many'; wanted a natural number"),
        ({"kind": "include", "value": "90-x"}, "wanted ports, as in 3000,9090-9094"),
        ({"kind": "include", "value": "0"}, "wanted ports, as in 3000,9090-9094"),
    ],
)
def test_a_wrong_line_of_the_table_is_refused_by_number(line: dict[str, object], said: str) -> None:
    good = {"key": "net.core.somaxconn", "kind": "at_least", "value": 65535, "for": ["server"], "reason": "because"}
    assert tuning.host_tuning_faults([good], {}, REFUSED, Host().seen, NUMBERS) == []
    (fault,) = tuning.host_tuning_faults([{**good, **line}], {}, REFUSED, Host().seen, NUMBERS)
    assert said in fault


@pytest.mark.parametrize("value", [0, -1, "many", True, 100_000_001])
def test_a_number_out_of_range_is_refused_with_its_variable(value: object) -> None:
    numbers = {"host_tuning_connections": [value, 1, 100_000_000]}
    assert tuning.host_tuning_faults(TABLE, {}, REFUSED, Host().seen, numbers) == [
        f"host_tuning_connections is {value!r}, wanted 1 to 100000000; fix: correct it in group_vars"
    ]


def test_the_page_on_tuning_names_every_setting_and_everything_that_is_refused() -> None:
    page = (ROOT / "docs/tuning.md").read_text()
    wanted, _, rest = page.partition("## What does harm, or nothing")
    harm = rest.partition("## Alerts")[0]
    for setting in TABLE:
        assert setting["key"] in wanted, setting["key"]
    for rule in REFUSED:
        assert rule["key"].removeprefix("net.ipv4.") in harm, rule["key"]


# --- what follows from what is seen -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "value", "before", "wanted"),
    [
        ("set", 1, "1", "1"),
        ("set", "1024\t65535", "32768 60999", "1024 65535"),
        ("at_least", 65535, "4096", "65535"),
        ("at_least", 65535, "65535", None),
        ("at_least", 2_000_000, "9223372036854775807", None),
        ("at_least", 65535, None, "65535"),
        ("cap", 1_048_576, "4096 131072 6291456", "4096 131072 1048576"),
        ("cap", 1_048_576, "4096 131072 1048576", None),
        ("cap", 65536, "4096 131072 6291456", "4096 131072 131072"),
        ("cap", 65536, "4096 131072 131072", None),
        ("cap", 1_048_576, None, "4096 87380 212992"),
        ("include", "3000,9090-9091", "", "3000,9090-9091"),
        ("include", "3000,9091", "9090,30000-30002", "3000,9090-9091,30000-30002"),
        ("include", "3000", "2999-3001", None),
        ("include", "3000", None, "3000"),
    ],
)
def test_what_is_written_depends_on_what_was_there_before(
    kind: str, value: object, before: str | None, wanted: str | None
) -> None:
    now = before if before is not None else "4096 87380 212992"
    assert tuning.target({"kind": kind, "value": value}, before, now) == wanted


def test_a_stock_server_gets_the_table_and_keeps_what_is_enough() -> None:
    plan = Host().plan()
    assert written(plan) == plan["pending"] == SERVER
    assert plan["skipped"] == {
        "net.netfilter.nf_conntrack_max": "not there: this kernel lacks it, or its module is not loaded"
    }
    assert set(plan["files"]) == {"sysctl", "limits"}
    assert {key: entry["value"] for key, entry in plan["remember"]["values"].items()} == {
        key: STOCK[key] for key in SERVER
    }


def test_a_stock_load_generator_gets_ports() -> None:
    plan = Host().plan(role="load_generator")
    assert written(plan) == GENERATOR
    assert plan["in_force"].keys() == {*GENERATOR, "fs.nr_open", "fs.file-max"}


def test_a_second_run_changes_nothing_though_the_minima_are_met_now() -> None:
    host = Host()
    assert host.run()
    assert host.values == {**STOCK, **SERVER}
    assert not host.run()
    assert host.files[PATHS["sysctl"]] == SERVER


def test_a_minimum_that_a_new_kernel_or_service_manager_no_longer_meets_is_written_then() -> None:
    host = Host()
    host.run()
    host.defaults["fs.nr_open"] = "1048576"
    host.boot()
    assert written(host.plan()) == {**SERVER, "fs.nr_open": "2000000"}
    assert host.run()
    assert not host.run()
    assert host.run("baseline")
    assert host.values["fs.nr_open"] == "1048576"


def test_a_setting_that_is_built_on_an_earlier_kernels_value_is_named() -> None:
    host = Host()
    host.run()
    host.kernel = "6.12"
    host.boot()
    said = host.plan()["said"]
    assert (
        "an earlier kernel had (net.core.somaxconn, net.ipv4.tcp_max_syn_backlog, net.ipv4.tcp_rmem, net.ipv4.tcp_wmem)"
        in said
    )
    assert not host.run()


def test_a_value_changed_by_hand_is_brought_back_and_a_better_one_stays() -> None:
    host = Host()
    host.run()
    host.values.update({"net.core.somaxconn": "128", "net.ipv4.tcp_max_syn_backlog": "90000"})
    plan = host.plan()
    assert plan["pending"] == {"net.core.somaxconn": "65535"}
    assert plan["unmet"] == ["net.core.somaxconn: wanted 65535, found 128"]


def test_a_boot_puts_the_file_in_force() -> None:
    host = Host()
    host.run()
    host.boot()
    assert not host.run()


def test_baseline_gives_back_values_and_a_file_that_was_there() -> None:
    host = Host()
    host.files[PATHS["sysctl"]] = {"content": "net.core.somaxconn = 4096\n", "mode": "0640"}
    host.run()
    assert host.files[PATHS["sysctl"]] == SERVER
    host.run("baseline")
    assert host.values == STOCK
    assert host.files == {PATHS["sysctl"]: {"content": "net.core.somaxconn = 4096\n", "mode": "0640"}}
    assert host.record is None
    assert not host.run("baseline")


def test_baseline_leaves_a_file_that_somebody_put_in_place_of_ours() -> None:
    host = Host()
    host.run()
    host.files[PATHS["sysctl"]] = {"content": "# theirs\n", "mode": "0644"}
    host.run("baseline")
    assert host.files == {PATHS["sysctl"]: {"content": "# theirs\n", "mode": "0644"}}


def test_a_setting_that_is_no_longer_asked_for_is_given_back_and_forgotten() -> None:
    host = Host()
    host.run(net__ipv4__tcp_keepalive_time=300, net__core__somaxconn="1000")
    assert host.values == {**STOCK, **SERVER, "net.ipv4.tcp_keepalive_time": "300", "net.core.somaxconn": "1000"}
    host.run()
    assert host.values == {**STOCK, **SERVER}
    assert host.record is not None
    assert set(host.record["values"]) == set(SERVER)
    assert not host.run()


def test_a_lost_record_keeps_the_file_whole_and_says_what_baseline_cannot_give_back() -> None:
    host = Host()
    host.run()
    host.record = None
    host.run()
    assert host.files[PATHS["sysctl"]] == SERVER
    host.boot()
    assert not host.run()
    said = host.plan("baseline")["said"]
    assert said.startswith(
        "baseline: as it was before wslab. Not known any more, so left as they are until the next boot: net.core."
    )
    host.run("baseline")
    assert host.files == {}
    host.boot()
    assert host.values == STOCK


def test_a_container_sets_its_network_and_leaves_the_machine_alone() -> None:
    host = Host({**STOCK, "fs.file-max": "100000", "net.netfilter.nf_conntrack_max": "65536"})
    host.container, host.read_only = "systemd-nspawn", ["net.netfilter.nf_conntrack_max"]
    del host.values["net.ipv4.tcp_notsent_lowat"]
    host.settable = 20_000
    plan = host.plan()
    assert plan["skipped"] == {
        "fs.file-max": "the machine's, not a systemd-nspawn container's",
        "net.ipv4.tcp_notsent_lowat": "not there in a systemd-nspawn container",
        "net.netfilter.nf_conntrack_max": "read-only here",
        "nofile": "this host allows a process 20000 descriptors, not 1000000",
    }
    assert written(plan) == {key: value for key, value in SERVER.items() if key != "net.ipv4.tcp_notsent_lowat"}
    assert set(plan["files"]) == {"sysctl"}
    for key, why in plan["skipped"].items():
        assert f"{key} ({why})" in plan["said"]


def test_connection_tracking_is_set_where_it_is_loaded_and_again_whenever_it_is_loaded_later() -> None:
    key = "net.netfilter.nf_conntrack_max"
    host = Host({**STOCK, key: "65536"})
    assert written(host.plan())[key] == "200000"
    host.run()
    assert PATHS["udev"] in host.files
    del host.values[key]
    assert not host.run()
    assert host.files[PATHS["sysctl"]][key] == "200000"
    host.values[key] = "65536"
    host.run("baseline")
    assert host.values[key] == "65536"
    assert host.files == {}


def test_a_file_that_wins_at_boot_is_named_unless_it_is_good_enough() -> None:
    host = Host()
    host.others = {"net.core.somaxconn": [["/etc/sysctl.d/10-a.conf", "1"], ["/etc/sysctl.d/zz-admin.conf", "128"]]}
    assert host.plan()["overridden"] == [
        f"net.core.somaxconn: /etc/sysctl.d/zz-admin.conf sets 128 at boot, after {PATHS['sysctl']} with 65535"
    ]
    host.others["net.core.somaxconn"][-1][1] = "100000"
    assert host.plan()["overridden"] == []
    host.others["net.core.somaxconn"] = [["/etc/sysctl.d/10-a.conf", "1"], ["/etc/sysctl.d/99-sysctl.conf", "2"]]
    assert host.plan()["overridden"] == []


def test_a_login_that_does_not_get_its_descriptors_is_unmet() -> None:
    seen = Host().seen
    seen["open_files"]["login"] = 1024
    plan = tuning.host_tuning_plan(seen, TABLE, {}, "server", "tuned", OPEN_FILES, PATHS)
    assert "nofile of a login: wanted 1000000, found 1024" in plan["unmet"]


RUNS = st.tuples(
    st.just("run"),
    st.sampled_from(["tuned", "baseline"]),
    st.sampled_from(["server", "load_generator"]),
    st.sampled_from([{}, {"net__core__somaxconn": 7}, {"net__ipv4__tcp_keepalive_time": 60}]),
)
DRIFTS = st.tuples(
    st.just("drift"), st.sampled_from(sorted({*SERVER, *GENERATOR} - {"net.ipv4.ip_local_reserved_ports"}))
)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.one_of(RUNS, st.tuples(st.just("boot")), DRIFTS), max_size=8))
def test_whatever_happens_meanwhile_baseline_brings_the_first_values_back(steps: list[tuple[Any, ...]]) -> None:
    host = Host()
    for step in steps:
        if step[0] == "run":
            host.run(step[1], step[2], **step[3])
            assert not host.run(step[1], step[2], **step[3])
        elif step[0] == "boot":
            host.boot()
        elif host.record and step[1] in host.record["values"]:  # somebody else's change of what is not ours is theirs
            host.values[step[1]] = "4 5 6" if "mem" in step[1] else "11"
    host.run("baseline")
    assert (host.values, host.files, host.record) == (STOCK, {}, None)


# --- how a host is read -----------------------------------------------------------------------------------------------


def tree(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_files_are_read_in_the_order_of_systemd_and_hide_each_other_by_name(tmp_path: Path) -> None:
    files = {
        "usr/lib/sysctl.d/50-default.conf": "net.core.somaxconn = 1\n",
        "usr/lib/sysctl.d/60-hidden.conf": "net.core.somaxconn = 2\n",
        "etc/sysctl.d/60-hidden.conf": "# nothing\n",
        "run/sysctl.d/70-run.conf": "-net.core.somaxconn=3\n; net.core.somaxconn = 4\nnet.ipv4.* = 5\n",
        "etc/sysctl.d/99-wslab.conf": "net/core/somaxconn = 6\nnet.ipv4.tcp_rmem = 4096\t5  6\n",
        "etc/sysctl.d/README": "net.core.somaxconn = 7\n",
        "etc/sysctl.conf": "net.core.somaxconn = 8\n",
    }
    for name, text in files.items():
        tree(tmp_path, **{name: text})
    (tmp_path / "etc/sysctl.d/99-sysctl.conf").symlink_to("../sysctl.conf")
    (tmp_path / "usr/lib/sysctl.d/zz.conf").write_text("net.core.somaxconn = 9\n")
    (tmp_path / "etc/sysctl.d/zz.conf").symlink_to("/dev/null")
    assert looking.boot(tmp_path, ["net.core.somaxconn", "net.ipv4.tcp_rmem", "net.ipv4.tcp_sack"]) == {
        "net.core.somaxconn": [
            ["/usr/lib/sysctl.d/50-default.conf", "1"], ["/run/sysctl.d/70-run.conf", "3"],
            ["/etc/sysctl.d/99-sysctl.conf", "8"], ["/etc/sysctl.d/99-wslab.conf", "6"],
        ],
        "net.ipv4.tcp_rmem": [["/etc/sysctl.d/99-wslab.conf", "4096 5 6"]],
        "net.ipv4.tcp_sack": [],
    }  # fmt: skip


def test_a_host_is_read_with_its_record_and_what_only_our_file_names(tmp_path: Path) -> None:
    record = {"values": {"net.a.kept": {"value": "1", "kernel": "6.1"}}, "files": {}}
    for name, text in {
        "proc/sys/net/core/somaxconn": "4096\n",
        "proc/sys/net/a/kept": "2\n",
        "proc/sys/net/a/ours": "3\t4\n",
        "etc/sysctl.d/99-wslab.conf": "# Managed by us\nnet.a.ours = 3 4\n",
        "etc/other.conf": "theirs\n",
        "var/lib/wslab/host_tuning.json": json.dumps(record),
        "run/systemd/container": "lxc\n",
    }.items():
        tree(tmp_path, **{name: text})
    files = ["/etc/sysctl.d/99-wslab.conf", "/etc/other.conf", "/etc/none.conf"]
    seen = looking.seen(
        tmp_path, ["net.core.somaxconn", "net.no.such"], files, "Managed by us", "/var/lib/wslab/host_tuning.json", 1
    )
    assert seen["values"] == {"net.core.somaxconn": "4096", "net.no.such": None, "net.a.ours": "3 4", "net.a.kept": "2"}
    assert seen["record"] == record
    assert seen["container"] == "lxc"
    assert seen["marked"] == ["/etc/sysctl.d/99-wslab.conf"]
    assert seen["ours"] == {"net.a.ours": "3 4"}
    assert seen["files"] == {"/etc/other.conf": {"content": "theirs\n", "mode": "0644"}, "/etc/none.conf": None}
    assert seen["boot"]["net.a.ours"] == [["/etc/sysctl.d/99-wslab.conf", "3 4"]]


def test_a_record_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    tree(tmp_path, **{"record.json": "{"})
    with pytest.raises(ValueError, match="Expecting"):
        looking.seen(tmp_path, [], ["/etc/x"], "mark", "/record.json", 1)


# --- on hosts ---------------------------------------------------------------------------------------------------------

SERVER_HOST, GENERATOR_HOST = "server", "load-1"
RECAP = re.compile(r"^(\S+) +: ok=\d+ +changed=(\d+) +unreachable=(\d+) +failed=(\d+)", re.MULTILINE)
Changes = dict[str, int]


def play(lab: VirtualLab, playbook: str, *options: str, fails: bool = False) -> tuple[Changes, str]:
    """Run the role alone on the two hosts; changes by host, and what was said."""
    hosts = f"{SERVER_HOST},{GENERATOR_HOST}"
    done = lab.play(playbook, "--tags", "host_tuning", "--limit", hosts, "-e", "teardown_yes=true", *options)
    said = done.stdout + done.stderr
    recap = RECAP.findall(done.stdout)
    assert (done.returncode != 0) == fails, said
    assert any(int(failed) for *_, failed in recap) == fails, said
    return {name: int(changed) for name, changed, *_ in recap}, " ".join(said.split()).replace("''", "'")


def tune(lab: VirtualLab, *options: str) -> Changes:
    return play(lab, "site.yml", *options)[0]


def in_force(lab: VirtualLab, host: str, keys: Iterable[str]) -> dict[str, str]:
    names = sorted(keys)
    said = lab.on(host, "cat", *(f"/proc/sys/{name.replace('.', '/')}" for name in names))
    return dict(zip(names, (" ".join(line.split()) for line in said.splitlines()), strict=True))


def traces(lab: VirtualLab, host: str) -> list[str]:
    """The files that the role leaves on a host while it is tuned."""
    places = "/etc/sysctl.d /etc/security/limits.d /etc/udev /var/lib/wslab"
    find = f"find {places} -type f '(' -name '*wslab*' -o -name 'host_tuning*' ')' 2>/dev/null || :"
    return lab.on(host, "sh", "-c", find).split()


def restart(lab: VirtualLab, host: str) -> None:
    """`systemctl reboot` on a host, and wait until it is back."""
    marker = "/run/before-the-reboot"
    lab.on(host, "touch", marker)
    lab.on(host, "systemctl", "reboot")
    deadline = time.monotonic() + 90
    look = ("exec", host, "--", "sh", "-c", f"test ! -e {marker} && systemctl is-active sysinit.target")
    back = False
    while not back:
        assert time.monotonic() < deadline, f"{host} does not come back: {lab.run('status').stdout}"
        time.sleep(0.1)
        with contextlib.suppress(subprocess.TimeoutExpired):  # a command that met the guest's end
            back = lab.run(*look, timeout_s=10).returncode == 0


@pytest.fixture(scope="module")
def bare(virtual_lab: VirtualLab) -> Iterator[VirtualLab]:
    """The lab, not tuned before and after; each test leaves it so."""
    play(virtual_lab, "playbooks/teardown.yml")
    yield virtual_lab
    play(virtual_lab, "playbooks/teardown.yml")


def test_a_wrong_variable_is_named_before_anything_is_touched(bare: VirtualLab) -> None:
    variables = {"host_tuning_extra": {"net.ipv4.tcp_tw_recycle": 1}}
    changes, said = play(bare, "site.yml", "-e", json.dumps(variables), fails=True)
    assert "host_tuning_extra, net.ipv4.tcp_tw_recycle, is 1: refused, since it broke clients behind NAT" in said
    assert set(changes.values()) == {0}
    assert traces(bare, SERVER_HOST) == []


def test_a_file_that_would_win_at_boot_is_named_before_anything_is_touched(bare: VirtualLab) -> None:
    file = "/etc/sysctl.d/zz-admin.conf"
    bare.on(SERVER_HOST, "sh", "-c", f"echo net.core.somaxconn=128 > {file}")
    try:
        changes, said = play(bare, "site.yml", fails=True)
    finally:
        bare.on(SERVER_HOST, "rm", file)
    assert f"net.core.somaxconn: {file} sets 128 at boot, after /etc/sysctl.d/99-wslab.conf with 65535" in said
    assert set(changes.values()) == {0}
    assert traces(bare, SERVER_HOST) == []


def test_hosts_are_tuned_once_kept_tuned_over_a_reboot_and_given_back(bare: VirtualLab) -> None:
    own, machines, nobodys = "net.ipv4.tcp_keepalive_time", "fs.pipe-max-size", "net.core.netdev_max_backlog"
    keys = {*SERVER, *GENERATOR, own}
    was = {host: in_force(bare, host, keys) for host in (SERVER_HOST, GENERATOR_HOST)}
    wanted = {SERVER_HOST: {**was[SERVER_HOST], **SERVER}, GENERATOR_HOST: {**was[GENERATOR_HOST], **GENERATOR}}
    for host, values in wanted.items():
        for key in ("net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"):  # the host's own minimum and default stay
            values[key] = " ".join([*was[host][key].split()[:2], "1048576"])
    file, record = "/etc/sysctl.d/99-wslab.conf", "/var/lib/wslab/host_tuning.json"

    def are() -> dict[str, dict[str, str]]:
        return {host: in_force(bare, host, keys) for host in wanted}

    changes, said = play(bare, "site.yml", "--check", "--diff")  # on a bare host: all is listed, nothing is done
    assert all(changes.values())
    assert "+net.core.somaxconn = 65535" in said
    assert "+net.ipv4.ip_local_port_range = 1024 65535" in said
    assert (are(), traces(bare, SERVER_HOST)) == (was, [])

    machine = Path("/proc/sys/fs/pipe-max-size").read_text()  # settings of one's own, two of which a container has not
    more = {own: 300, machines: 2 * int(machine), nobodys: 5000}
    changes, said = play(bare, "site.yml", "-e", json.dumps({"host_tuning_extra": more}))
    assert all(changes.values())
    assert f"{machines} (the machine's, not a systemd-nspawn container's)" in said
    assert f"{nobodys} (not there in a systemd-nspawn container)" in said
    assert Path("/proc/sys/fs/pipe-max-size").read_text() == machine
    assert are() == {host: {**values, own: "300"} for host, values in wanted.items()}
    assert bare.on(SERVER_HOST, "stat", "-c", "%a %U", "/var/lib/wslab", record) == "700 root\n600 root\n"

    assert all(tune(bare).values())  # without them they are as they were
    assert are() == wanted
    assert tune(bare) == {SERVER_HOST: 0, GENERATOR_HOST: 0}

    bare.on(SERVER_HOST, "sh", "-c", "echo 128 > /proc/sys/net/core/somaxconn")
    changes, said = play(bare, "site.yml", "--check", "--diff")
    assert changes == {SERVER_HOST: 1, GENERATOR_HOST: 0}
    assert "-net.core.somaxconn = 128 +net.core.somaxconn = 65535" in said

    restart(bare, GENERATOR_HOST)
    assert in_force(bare, GENERATOR_HOST, keys) == wanted[GENERATOR_HOST]
    assert tune(bare) == {SERVER_HOST: 1, GENERATOR_HOST: 0}
    assert are() == wanted

    changes = tune(bare, "--limit", SERVER_HOST, "-e", "host_tuning_profile=baseline")
    assert changes[SERVER_HOST] > 0
    assert are() == {SERVER_HOST: was[SERVER_HOST], GENERATOR_HOST: wanted[GENERATOR_HOST]}
    assert traces(bare, SERVER_HOST) == []
    assert {file, record} <= set(traces(bare, GENERATOR_HOST))
    changes, _ = play(bare, "playbooks/teardown.yml")
    assert changes[SERVER_HOST] == 0
    assert changes[GENERATOR_HOST] > 0
    assert (are(), traces(bare, GENERATOR_HOST)) == (was, [])
