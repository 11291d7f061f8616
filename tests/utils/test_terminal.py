"""How commands tell, whoever reads it."""

import json
import os
import subprocess
import sys

import pytest

TELL = (
    "import logging, warnings\n"
    "from edgemin_hf.utils.terminal import log_to_terminal\n"
    "log_to_terminal(('a',))\n"
    "log_to_terminal(('a',), json_lines=True)\n"
)


def run(code, **settings):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TQDM", "HF_HUB_DIS"))}
    return subprocess.run([sys.executable, "-c", TELL + code], text=True, env=environment, check=True, **settings)


def test_a_second_command_of_a_process_tells_by_its_own_format_alone():
    code = "logging.getLogger('a').info('one'); logging.getLogger('b').warning('two'); warnings.warn('three')"
    done = run(code, capture_output=True)
    assert [json.loads(line)["message"] for line in done.stdout.splitlines()] == ["one"]
    two, three = map(json.loads, done.stderr.splitlines())
    assert (two["level"], two["message"]) == ("warning", "two")
    assert "UserWarning: three" in three["message"]


def test_a_command_goes_on_when_nobody_reads_it_any_more():
    reader, writer = os.pipe()
    os.close(reader)
    code = "import sys\nfor line in range(3): logging.getLogger('a').info('line')\nprint('ended', file=sys.stderr)"
    done = run(code, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert done.stderr == "ended\n"


@pytest.mark.parametrize(("rank", "bars"), [("0", "None None"), ("1", "1 1")])
def test_the_first_of_several_processes_alone_has_bars(rank, bars):
    code = (
        "import io, os, sys\n"
        "for name in ('TQDM_DISABLE', 'HF_HUB_DISABLE_PROGRESS_BARS'): os.environ.pop(name, None)\n"
        f"os.environ['RANK'] = '{rank}'\n"
        "sys.stderr.isatty = lambda: True\n"
        "log_to_terminal(('a',))\n"
        "print(os.environ.get('TQDM_DISABLE'), os.environ.get('HF_HUB_DISABLE_PROGRESS_BARS'))"
    )
    assert run(code, capture_output=True).stdout == f"{bars}\n"
