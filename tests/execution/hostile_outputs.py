"""The hostile corpus, second half: jobs that leave too much, or what is not what it seems."""

from __future__ import annotations

from hostile_case import ENDED_WELL, OWN_FAULT, TOO_MUCH_OUTPUT, HostileJob

OUTPUT_SIZE = (
    HostileJob(
        "log_flood_of_one_line",
        "block = b'x' * 65536\n"
        "for _ in range(16384): os.write(1, block)\n"  # 1 GiB
        "print()\nraise RuntimeError('the cause')",
        ends=OWN_FAULT,
        log_has=("RuntimeError: the cause",),
        deadline_s=240,
    ),
    HostileJob(
        "log_flood_of_lines",
        "block = (b'x' * 1023 + b'\\n') * 64\n"
        "for _ in range(16384): os.write(1, block)\n"  # 1 GiB
        "raise RuntimeError('the cause')",
        ends=OWN_FAULT,
        log_has=("RuntimeError: the cause",),
        deadline_s=240,
    ),
    HostileJob(
        "sparse_output",
        """
os.mkdir("adapter")
for name in ("result.json", "metrics.jsonl", "failure.json", "adapter/adapter_model.safetensors"):
    with open(name, "wb") as stream:
        stream.truncate(10 << 30)
time.sleep(1)
""",
        readings={"result": "is larger than", "health": "is longer than", "copy": "is larger than"},
        max_disk_mib=1,
    ),
    HostileJob(
        "output_past_the_limit",
        """
with open("big", "wb", 0) as stream:
    while True:
        stream.write(bytes(4 << 20))
        time.sleep(0.02)
""",
        ends=TOO_MUCH_OUTPUT,
        max_disk_mib=1024,
    ),
    HostileJob(
        "output_past_the_limit_between_two_looks",
        "time.sleep(0.7)\nwith open('big', 'wb') as stream: stream.write(bytes(96 << 20))",
        ends=TOO_MUCH_OUTPUT,
        max_disk_mib=100,
    ),
    HostileJob(
        "output_where_no_path_reaches",
        """
for _ in range(1500):
    os.mkdir("deep-and-still-deeper")
    os.chdir("deep-and-still-deeper")
with open("big", "wb", 0) as stream:
    for _ in range(96): stream.write(bytes(1 << 20))
time.sleep(60)
""",
        ends=TOO_MUCH_OUTPUT,
        max_disk_mib=120,
    ),
    HostileJob(
        "output_in_deleted_files",  # what no name leads to is not counted; it is gone with the job
        """
with open("big", "wb") as stream:
    os.unlink("big")
    stream.write(bytes(96 << 20))
    stream.flush()
    time.sleep(1)
""",
        max_disk_mib=1,
    ),
    HostileJob(
        "output_in_a_folder_that_cannot_be_listed",
        """
os.mkdir("hidden")
with open("hidden/big", "wb", 0) as stream:
    os.chmod("hidden", 0o300)
    for _ in range(96): stream.write(bytes(1 << 20))
time.sleep(60)
""",
        ends=TOO_MUCH_OUTPUT,
        max_disk_mib=100,
    ),
    HostileJob(
        "a_million_files",
        "os.mkdir('many')\nfor n in range(1_000_000): open(f'many/{n}', 'x').close()",
        ends=TOO_MUCH_OUTPUT,
        readings={"copy": "too many files"},
        max_disk_mib=1024,
    ),
    HostileJob(
        "a_million_metric_lines",
        """
line = json.dumps({"step": 1, "loss": 1.0}) + "\\n"
with open("metrics.jsonl", "w") as stream:
    for n in range(1_000_000): stream.write(line)
time.sleep(1)
""",
        readings={"health": "lines"},
    ),
    HostileJob(
        "one_endless_metric_line",
        """
with open("metrics.jsonl", "wb") as stream:
    stream.write(b'{"step": 1, "loss": "')
    for _ in range(500): stream.write(b"9" * (1 << 20))
time.sleep(1)
""",
        limits={"output_bytes": 1 << 30},
        readings={"health": "is longer than"},
        max_disk_mib=600,
    ),
    HostileJob(
        "compression_bomb",
        """
import gzip
member = gzip.compress(bytes(64 << 20), 9)
os.mkdir("adapter")
for name in ("metrics.jsonl", "result.json", "data.jsonl.gz", "adapter/adapter_model.safetensors"):
    with open(name, "wb") as stream:
        for _ in range(160): stream.write(member)
write("adapter/adapter_config.json", json.dumps({"peft_type": "LORA", "base_model_name_or_path": INPUT}))
""",
        readings={"health": "no_metrics", "result": "larger than", "weights": "safetensors"},
    ),
    HostileJob(
        "json_bombs",
        """
with open("metrics.jsonl", "w") as stream:
    for line in ("[" * 60000, "1" * 60000, '{"step": 1e999, "loss": []}', '{"step": true, "loss": NaN}',
                 '{"a":' * 9000, '{"step": ' + "7" * 5000 + ', "loss": 1}', '"' + "\\\\ud800" * 9000 + '"'):
        stream.write(line + "\\n")
write("result.json", '{"a":' * 100_000)
write("failure.json", "[" + "[]," * 20_000 + "[]]")
time.sleep(1)
""",
        readings={"health": "no_metrics", "result": "nested too deeply", "failure": "None"},
    ),
)

OUTPUT_KINDS = (
    HostileJob(
        "links_to_host_files",
        """
for name in ("result.json", "metrics.jsonl", "failure.json", "job.log"):
    os.symlink(SECRET, name)
os.symlink(os.path.dirname(SECRET), "adapter")
os.symlink("/", "root")
os.symlink(os.path.join(CONTROL, "result.json"), "stop.json")
os.symlink("loop", "loop")
tell(hard_link=attempt(os.link, INPUT + "/in.txt", "linked"))
time.sleep(1)
""",
        seen={"hard_link": "refused"},
        readings={
            "result": "cannot be read",
            "health": "cannot be read",
            "failure": "None",
            "tail": "[]",
            "weights": "refused",
        },
    ),
    HostileJob(
        "pipes_and_sockets",
        """
os.mkfifo("result.json")
os.mkfifo("metrics.jsonl")
socket.socket(socket.AF_UNIX).bind("failure.json")
os.mkdir("adapter")
os.mkfifo("adapter/adapter_model.safetensors")
write("adapter/adapter_config.json", "{}")
time.sleep(1)
""",
        readings={"result": "cannot be read", "health": "cannot be read", "weights": "no regular file"},
    ),
    HostileJob(
        "device_files",
        """
import stat
tell(disk=attempt(os.mknod, "disk", stat.S_IFBLK | 0o666, os.makedev(8, 0)),
     memory=attempt(os.mknod, "memory", stat.S_IFCHR | 0o666, os.makedev(1, 1)),
     zero=attempt(os.mknod, "/dev/other", stat.S_IFCHR | 0o666, os.makedev(1, 5)))
attempt(os.mknod, "result.json", stat.S_IFCHR | 0o666, 0)  # a whiteout, which anyone may make
os.symlink("/dev/zero", "metrics.jsonl")
time.sleep(1)
""",
        seen={"disk": "refused", "memory": "refused", "zero": "refused"},
        readings={"health": "cannot be read"},
    ),
    HostileJob(
        "paths_that_lead_out",
        """
write("result.json", json.dumps({"weights": "../../home", "n_steps": 1, "versions": {}}))
write("failure.json", json.dumps({"class": "../../home/secret", "message": "../" * 50}))
os.makedirs("adapter")
write("adapter/adapter_model.safetensors", "x")
write("adapter/model.safetensors.index.json", json.dumps({"weight_map": {"a": "../../home/x.safetensors"}}))
write("adapter/adapter_config.json", json.dumps({"peft_type": "LORA", "base_model_name_or_path": "../.."}))
""",
        readings={"result": "is not usable", "weights": "refused"},
    ),
    HostileJob(
        "odd_names",
        """
for name in (b"a" * 255, b"new\\nline", b"\\xff\\xfe", "\\u202egpj".encode(), b"-rf", b"\\x1b[2J", b" "):
    open(name, "wb").close()
    os.mkdir(b"d" + name[:200])
""",
        readings={"copy": "left out"},
    ),
    HostileJob(
        "takes_its_own_rights_away",
        """
os.makedirs("adapter/inner")
for name in ("result.json", "metrics.jsonl", "adapter/adapter_model.safetensors", "adapter/inner/x"):
    write(name)
    os.chmod(name, 0)
for name in ("adapter/inner", "adapter", "."):
    os.chmod(name, 0)
""",
        ends=(*ENDED_WELL, *TOO_MUCH_OUTPUT),  # the second where a look falls before the end
    ),
    HostileJob(
        "pickle_in_safetensors",
        """
import pickle
class Payload:
    def __reduce__(self): return os.system, (f"touch {RUN}/pwned",)
os.mkdir("adapter")
with open("adapter/adapter_model.safetensors", "wb") as stream: pickle.dump(Payload(), stream)
write("adapter/adapter_config.json", json.dumps({"peft_type": "LORA", "base_model_name_or_path": INPUT}))
with open("result.json", "wb") as stream: pickle.dump(Payload(), stream)
""",
        readings={"weights": "safetensors", "result": "is not valid JSON"},
    ),
    HostileJob(
        "pickle_beside_weights",
        """
import pickle
class Payload:
    def __reduce__(self): return os.system, (f"touch {RUN}/pwned",)
os.mkdir("adapter")
for name in ("adapter_model.bin", "training_args.bin"):
    with open(f"adapter/{name}", "wb") as stream: pickle.dump(Payload(), stream)
write("adapter/adapter_config.json", json.dumps({"peft_type": "LORA", "base_model_name_or_path": INPUT}))
""",
        readings={"weights": "may be a pickle"},
    ),
    HostileJob(
        "poisoned_adapter_config",
        """
header = json.dumps({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}).encode()
os.mkdir("adapter")
with open("adapter/adapter_model.safetensors", "wb") as stream:
    stream.write(len(header).to_bytes(8, "little") + header + b"x")
write("adapter/adapter_config.json", json.dumps({
    "peft_type": "LORA", "base_model_name_or_path": INPUT,
    "auto_mapping": {"base_model_class": "system", "parent_library": "os"}}))
""",
        readings={"weights": "auto_mapping"},
    ),
    HostileJob(
        "adapter_of_another_base",
        """
header = json.dumps({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}).encode()
os.mkdir("adapter")
with open("adapter/adapter_model.safetensors", "wb") as stream:
    stream.write(len(header).to_bytes(8, "little") + header + b"x")
write("adapter/adapter_config.json", json.dumps({
    "peft_type": "LORA", "base_model_name_or_path": "evil/model-with-code"}))
""",
        readings={"weights": "names another base model"},
    ),
)
