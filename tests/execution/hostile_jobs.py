"""The hostile corpus: what a job may try, and what must be true after it. Data only; no test runs here.

Each case is Python code that runs in a container after `PRELUDE`, in the job's own folder, and the
ends that are right for it. A job that reports what it saw writes it with `tell`; readers are named as
in `test_hostile_jobs_docker`. What holds after every job (host files unchanged, no process
and no container left, no key seen, bounded disk and memory, the next job runs) is checked there.
"""

from __future__ import annotations

from hostile_case import ENDED_WELL, OUT_OF_MEMORY, OUT_OF_TIME, OWN_FAULT, HostileJob
from hostile_outputs import OUTPUT_KINDS, OUTPUT_SIZE

PROCESSES = (
    HostileJob(
        "fork_bomb",
        "while True:\n    attempt(os.fork)",
        ends=(*OUT_OF_TIME, *OUT_OF_MEMORY),
        deadline_s=4,
    ),
    HostileJob(
        "fork_bomb_whose_parent_leaves",
        "subprocess.run(['sh', '-c', 'b() { b | b & }; b'])\ntime.sleep(2)",
        ends=(*ENDED_WELL, *OUT_OF_MEMORY),
    ),
    HostileJob(
        "child_that_outlives_its_parent",
        """
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True:
                write("beat")
                time.sleep(0.05)
        os._exit(0)
while not os.path.exists("beat"): time.sleep(0.01)
""",
    ),
    HostileJob(
        "ignores_sigterm",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: time.sleep(1)",
        ends=OUT_OF_TIME,
        deadline_s=3,
    ),
    HostileJob(
        "stops_its_own_watchdog",
        "os.kill(os.getppid(), signal.SIGSTOP)\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "while True: time.sleep(1)",
        ends=OUT_OF_TIME,
        deadline_s=3,
    ),
    HostileJob(
        "stops_whoever_enters_its_container",
        "while True:\n    attempt(os.kill, -1, signal.SIGSTOP)",
        ends=OUT_OF_TIME,
        deadline_s=3,
    ),
    HostileJob(
        "endless_loop",
        "os.fork()\nwhile True: pass",
        ends=OUT_OF_TIME,
        deadline_s=3,
    ),
    HostileJob(
        "kills_everything_it_can_see",
        "os.kill(-1, signal.SIGKILL)\ntime.sleep(60)",
        ends=(("resource", "killed, memory suspected"),),
    ),
    HostileJob(
        "kills_the_first_process",
        "os.kill(1, signal.SIGKILL)\nos.kill(1, signal.SIGSTOP)\ntime.sleep(0.5)\ntell(alive=True)",
        seen={"alive": True},
    ),
    HostileJob(
        "traces_the_first_process",  # it may: the process is its own. At most, nobody reaps it then
        "attempt(call, 'ptrace', 16, 1, 0, 0)\ntime.sleep(0.5)",
        ends=(*ENDED_WELL, *OUT_OF_TIME),
        deadline_s=4,
    ),
    HostileJob(
        "future_change_times_hide_no_stall",
        """
write("metrics.jsonl", "{}\\n")
os.utime("metrics.jsonl", (4e9, 4e9))
time.sleep(60)
""",
        ends=(("resource", "stalled"),),
        stall_timeout_s=1.5,
        deadline_s=15,
    ),
)

MEMORY = (
    HostileJob(
        "memory_past_the_limit",
        "held = []\nwhile True: held.append(bytearray(8 << 20))",
        ends=OUT_OF_MEMORY,
    ),
    HostileJob(
        "memory_of_a_child",
        """
pid = os.fork()
if pid == 0:
    held = []
    while True: held.append(bytearray(8 << 20))
os.waitpid(pid, 0)
sys.exit(1)
""",
        ends=OUT_OF_MEMORY,
    ),
    HostileJob(
        "memory_in_dev_shm",
        """
with open("/dev/shm/fill", "wb") as stream:
    print(attempt(lambda: [stream.write(bytes(1 << 20)) for _ in range(1000)]))
held = []
while True: held.append(bytearray(8 << 20))
""",
        ends=OUT_OF_MEMORY,
        log_has=("refused",),
    ),
    HostileJob(
        "fills_tmp",
        "with open('/tmp/fill', 'wb', 0) as stream:\n    while True: stream.write(bytes(1 << 20))",
        ends=OWN_FAULT,
        log_has=("No space left on device",),
    ),
    HostileJob(
        "fills_dev",
        "with open('/dev/fill', 'wb', 0) as stream:\n    while True: stream.write(bytes(1 << 20))",
        ends=(*OWN_FAULT, *OUT_OF_MEMORY),
    ),
)

REACH = (
    HostileJob(
        "rm_rf_root",
        "subprocess.run(['rm', '-rf', '--no-preserve-root', '/'])\nsys.exit(1)",
        ends=OWN_FAULT,
    ),
    HostileJob(
        "reads_environments",
        """
found = [dict(os.environ)]
for pid in [p for p in os.listdir("/proc") if p.isdigit()]:
    found.append(open(f"/proc/{pid}/environ", "rb").read().decode())
    found.append(open(f"/proc/{pid}/cmdline", "rb").read().decode())
print(found)
tell(n=len(found) > 4)
""",
        seen={"n": True},
        log_has=("HF_HUB_OFFLINE",),
        log_lacks=("'FT_", "API_KEY"),
    ),
    HostileJob(
        "sockets",
        """
def connect(family, kind, address):
    with socket.socket(family, kind) as end:
        end.settimeout(2)
        end.connect(address)
        end.send(b"x")
tell(
    host=attempt(connect, socket.AF_INET, socket.SOCK_STREAM, (HOST, PORT)),
    bridge=attempt(connect, socket.AF_INET, socket.SOCK_STREAM, ("172.17.0.1", PORT)),
    loopback=attempt(connect, socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", PORT)),
    world=attempt(connect, socket.AF_INET, socket.SOCK_STREAM, ("1.1.1.1", 443)),
    datagram=attempt(connect, socket.AF_INET, socket.SOCK_DGRAM, (HOST, PORT)),
    six=attempt(connect, socket.AF_INET6, socket.SOCK_STREAM, ("2606:4700:4700::1111", 443)),
    vsock=attempt(connect, 40, socket.SOCK_STREAM, (2, 1024)),
    raw=attempt(socket.socket, socket.AF_INET, socket.SOCK_RAW, 1),
    packet=attempt(socket.socket, socket.AF_PACKET, socket.SOCK_RAW, 3),
    engine=attempt(connect, socket.AF_UNIX, socket.SOCK_STREAM, "/var/run/docker.sock"),
    abstract=attempt(connect, socket.AF_UNIX, socket.SOCK_STREAM, "\\0ft-canary"),
)
""",
        all_refused=True,
    ),
    HostileJob(
        "lists_interfaces_and_names",
        """
tell(interfaces=[name for _, name in socket.if_nameindex()],
     name=attempt(socket.getaddrinfo, "example.com", 443),
     routes=len(open("/proc/net/route").readlines()))
""",
        seen={"interfaces": ["lo"], "name": "refused", "routes": 1},
    ),
    HostileJob(
        "writes_outside",
        """
places = ["/etc/passwd", "/etc/hosts", "/etc/resolv.conf", "/etc/hostname", "/opt/x", "/opt/venv/x", "/x",
          "/opt/rdagent-ft/rdagent_ft/x.py", "/usr/bin/x", "/root/x", "/var/x", "/run/x", INPUT + "/x",
          INPUT + "/in.txt", "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/sys/kernel/x",
          "/sys/fs/cgroup/pids/pids.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/proc/1/root/etc/x"]
tell(**{place: attempt(write, place) for place in places})
for place in (RUN + "/x", CONTROL + "/result.json", CONTROL + "/stop.json", SECRET, OUT + "/../x"):
    attempt(os.makedirs, os.path.dirname(place))
    attempt(write, place)  # some of these parents are empty folders of the container: the host has no x
attempt(os.rename, OUT, OUT + "-moved")
attempt(os.rmdir, OUT)
""",
        all_refused=True,
    ),
    HostileJob(
        "looks_for_host_files",
        """
found = [path for path in (SECRET, RUN + "/run.db", CONTROL + "/result.json", "/var/run/docker.sock",
                           "/var/lib/docker", "/dev/vda", "/dev/sda", "/dev/kmsg", "/dev/fuse")
         if os.path.exists(path)]
beside = os.listdir(os.path.dirname(OUT))
tell(found=found, beside=beside)
""",
        seen={"found": [], "beside": ["attempt-1"]},
    ),
    HostileJob(
        "asks_for_more_rights",
        """
import shutil, stat
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
shutil.copy("/bin/sh", "shell")
os.chmod("shell", 0o6755)
uid = subprocess.run(["./shell", "-p", "-c", "id -u"], capture_output=True, text=True).stdout.strip()
tell(**{name: status[name].strip() for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")},
     no_new_privileges=status["NoNewPrivs"].strip(), seccomp=status["Seccomp"].strip(),
     same_user=uid == str(os.getuid()), owner=attempt(os.chown, ".", 12345, 12345),
     user=attempt(os.setuid, 12345), groups=attempt(os.setgroups, [0, 998]))
""",
        seen={
            **dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), "0" * 16),
            "no_new_privileges": "1",
            "seccomp": "2",
            "same_user": True,
            "owner": "refused",
            "user": "refused",
            "groups": "refused",
        },
    ),
    HostileJob(
        "kernel_doors",
        """
NEW_USER, NEW_NS = 0x10000000, 0x20000
os.mkdir("place")
tell(
    mount=attempt(call, "mount", b"none", b"place", b"tmpfs", 0, None),
    bind=attempt(call, "mount", b"/proc", b"place", None, 4096, None),
    remount=attempt(call, "mount", None, b"/", None, 32 | 4096, None),
    umount=attempt(call, "umount2", INPUT.encode(), 2),
    user_namespace=attempt(call, "unshare", NEW_USER),
    mount_namespace=attempt(call, "unshare", NEW_NS),
    enter=attempt(lambda: call("setns", os.open("/proc/1/ns/mnt", os.O_RDONLY), 0)),
    root=attempt(os.chroot, "place"),
    host_name=attempt(socket.sethostname, "x"),
    clock=attempt(time.clock_settime, time.CLOCK_REALTIME, 1.0),
    handle=attempt(call, "syscall", 304, -100, 0, 0),   # open_by_handle_at
    module=attempt(call, "syscall", 313, 0, b"", 0),    # finit_module
    program=attempt(call, "syscall", 321, 0, 0, 0),     # bpf
    keys=attempt(call, "syscall", 250, 0, 0, 0),        # keyctl
    reboot=attempt(call, "reboot", 0x1234567),
    swap=attempt(call, "swapoff", b"/dev/vda"),
    priority=attempt(os.nice, -5),
    core_size=attempt(call, "setrlimit", 4, struct.pack("QQ", 1 << 30, 1 << 30)),
    memory_guard=attempt(write, "/proc/self/oom_score_adj", "-1000"),
)
""",
        all_refused=True,
    ),
)

ENDS = (
    HostileJob(
        "terminal_escapes_and_a_crafted_dict",
        r"""
print("{'train_runtime': __import__('os').system('touch %s/pwned')}" % RUN)
print("{'loss': 1.0, 'step': __import__('shutil').rmtree('/')}")
print("\x1b[2J\x1b]0;title\x07\x1b]52;c;cm0gLXJm\x07\x9b31m\x1bP1;2q\x1b\\\u202edne eht\u2066 \x08\x08\x07")
""",
        log_has=("{'train_runtime': __import__('os').system(", "{'loss': 1.0, 'step': __import__"),
        log_lacks=("\x1b", "\x9b", "\x07", "\x08", "\u202e", "\u2066"),
    ),
    HostileJob(
        "core_dump",
        """
import resource
tell(core=list(resource.getrlimit(resource.RLIMIT_CORE)))
held = bytearray(32 << 20)
os.abort()
""",
        ends=OWN_FAULT,
        seen={"core": [0, 0]},
        max_disk_mib=1,
    ),
    HostileJob(
        "closes_its_output",
        "for number in range(3): os.close(number)\ntell(went_on=True)\nos._exit(0)",
        seen={"went_on": True},
    ),
    HostileJob("exit_137_without_a_kill", "sys.exit(137)", ends=(("resource", "killed, memory suspected"),)),
    HostileJob("exit_124_before_the_deadline", "sys.exit(124)", ends=OWN_FAULT),
    HostileJob("exit_143_as_if_stopped", "sys.exit(143)", ends=(("infra", "killed"),)),
)

HOSTILE_JOBS = (*PROCESSES, *MEMORY, *OUTPUT_SIZE, *OUTPUT_KINDS, *REACH, *ENDS)
