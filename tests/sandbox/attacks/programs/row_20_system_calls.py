"""Calls what a solution never needs; prints the error number of each (0: it worked).

The arguments are such that an unfiltered kernel would do nothing that lasts.
"""

import ctypes
import json
import os

libc = ctypes.CDLL(None, use_errno=True)
NEWUSER, NEWNS, NEWPID, NEWNET, NEWCGROUP = 1 << 28, 1 << 17, 1 << 29, 1 << 30, 1 << 25
CALLS = {  # x86-64 numbers and arguments
    "ptrace": (101, 0, 0, 0, 0),
    "ptrace_attach": (101, 16, 1, 0, 0),
    "process_vm_readv": (310, 1, 0, 0, 0, 0, 0),
    "process_vm_writev": (311, 1, 0, 0, 0, 0, 0),
    "pidfd_getfd": (438, 0, 0, 0),
    "process_madvise": (440, 0, 0, 0, 0, 0),
    "kcmp": (312, 1, 1, 0, 0, 0),
    "bpf": (321, 0, 0, 0),
    "perf_event_open": (298, 0, 0, -1, -1, 0),
    "userfaultfd": (323, 1),
    "add_key": (248, b"user", b"codeact", b"x", 1, -2),
    "request_key": (249, b"user", b"codeact", 0, 0),
    "keyctl": (250, 0, -3, 0, 0, 0),
    "mount": (165, b"none", b"/tmp", b"tmpfs", 0, 0),
    "umount2": (166, b"/tmp/none", 2),
    "pivot_root": (155, b"/tmp", b"/tmp"),
    "chroot": (161, b"/tmp"),
    "move_mount": (429, -1, b"", -1, b"", 0),
    "open_tree": (428, -100, b"/tmp", 1),
    "fsopen": (430, b"tmpfs", 0),
    "mount_setattr": (442, -100, b"/", 0, 0, 0),
    "unshare_user": (272, NEWUSER),
    "unshare_mount": (272, NEWNS),
    "unshare_net": (272, NEWNET),
    "setns": (308, 0, 0),
    "clone_user": (56, NEWUSER | 17, 0, 0, 0, 0),
    "clone_pid": (56, NEWPID | 17, 0, 0, 0, 0),
    "clone_mount": (56, NEWNS | 17, 0, 0, 0, 0),
    "clone_cgroup": (56, NEWCGROUP | 17, 0, 0, 0, 0),
    "io_uring_setup": (425, 1, 0),
    "io_uring_enter": (426, -1, 0, 0, 0, 0),
    "io_uring_register": (427, -1, 0, 0, 0),
    "kexec_load": (246, 0, 0, 0, 0),
    "kexec_file_load": (320, -1, -1, 0, 0, 0),
    "init_module": (175, 0, 0, b""),
    "finit_module": (313, -1, b"", 0),
    "delete_module": (176, b"codeact_none", 0),
    "open_by_handle_at": (304, -1, 0, 0),
    "name_to_handle_at": (303, -1, b"", 0, 0, 0),
    "quotactl": (179, 0, 0, 0, 0),
    "reboot": (169, 0, 0, 0, 0),
    "swapon": (167, b"/none", 0),
    "swapoff": (168, b"/none"),
    "syslog": (103, 10, 0, 0),
    "settimeofday": (164, 0, 0),
    "clock_settime": (227, 0, 0),
    "adjtimex": (159, 0),
    "acct": (163, b"/none"),
    "iopl": (172, 3),
    "ioperm": (173, 0x70, 1, 1),
    "modify_ldt": (154, 0, 0, 0),
    "mknod": (133, b"/tmp/device", 0o20600, 0x103),
    "setuid_root": (105, 0),
    "sethostname": (170, b"codeact", -1),
    "x32_getpid": (0x40000000 | 39,),
    "x32_ptrace": (0x40000000 | 521, 0, 0, 0, 0),
    "clone3": (435, 0, 0),
    "tiocsti": (16, 0, 0x5412, b"x"),
    "tioclinux": (16, 0, 0x541C, b"\x02"),
}
errors = {}
for name, (number, *arguments) in CALLS.items():
    ctypes.set_errno(0)
    plain = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = libc.syscall(ctypes.c_long(number), *plain)
    if name.startswith("clone_") and result == 0:
        os._exit(0)
    errors[name] = ctypes.get_errno() if result == -1 else 0
with open("/proc/self/status") as file:
    status = dict(line.rstrip().split(":", 1) for line in file)
print(
    json.dumps({"errors": errors, "status": {key: value.strip() for key, value in status.items()}})
)
