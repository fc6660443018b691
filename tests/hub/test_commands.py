"""`unibody push`, `card` and `run`, against the Hub on the loopback interface."""

from __future__ import annotations

import re
from pathlib import Path

from oracle.pipelines import write_bert, write_llama
from pages import ROOT, blocks

from hub.conftest import Client
from hub.loopback import Hub, Repository

COMMAND = """
from click.testing import CliRunner
from unibody import cli
def command(*arguments):
    done = CliRunner().invoke(cli.unibody, [str(argument) for argument in arguments])
    return [done.exit_code, done.stdout, done.stderr]
"""


def test_push(hub: Hub, client: Client) -> None:
    """The folder as it is, its subfolders too; again, and nothing is uploaded; links out of it are refused."""
    found = client(COMMAND + """
import shutil
work = Path("work").absolute()
shutil.copytree(folder, work)
(work / "inner").mkdir()
(work / "inner/note.txt").write_text("deep")
(work / ".hidden").write_text("secret")
answers["push"] = command("push", work, "alice/tiny", "--private", "--message", "As it is")
answers["again"] = command("push", work, "alice/tiny")
answers["request"] = command("push", work, "alice/tiny", "--pull-request")
(work / "outside.txt").symlink_to(Path("/etc/hostname"))
answers["link"] = command("push", work, "alice/tiny")
answers["none"] = command("push", work.parent, "alice/tiny")
""")  # fmt: skip
    repository = hub.repositories["alice/tiny"]
    files = repository.commits[repository.refs["main"]]
    assert found["push"][0] == 0, found["push"]
    assert found["push"][1].startswith(f"{hub.address}/alice/tiny/commit/")
    assert repository.titles[repository.refs["main"]] == "As it is"
    assert files["inner/note.txt"] == b"deep"
    assert ".hidden" not in files
    assert b"# tiny" in files["README.md"]
    assert repository.private
    assert (found["again"][0], len(repository.commits)) == (0, 2)
    assert found["link"][0] == 1
    assert "outside.txt is a link to" in found["link"][2]
    assert found["none"][0] == 1
    assert "config.json does not exist" in found["none"][2]


def test_card(client: Client) -> None:
    found = client(COMMAND + """
import shutil
work = Path("work").absolute()
shutil.copytree(folder, work)
answers["first"] = command("card", work, "alice/tiny")
answers["text"] = (work / "README.md").read_text()
answers["second"] = command("card", work, "alice/tiny")
""")  # fmt: skip
    assert found["first"][0] == 0
    assert 'model = unibody.AutoModelForCausalLM.from_pretrained("alice/tiny")' in found["text"]
    assert found["second"][0] == 1
    assert "exists, and is left as it is" in found["second"][2]


def test_run(hub: Hub, client: Client) -> None:
    """The text that the model's own `generate` gives, from a folder and from the Hub; what cannot be is said."""
    found = client(COMMAND + """
sys.path.insert(0, sys.argv[2])
from oracle.quantization import inputs
work = inputs.save_llama(Path("work").absolute())
from tokenizers import Tokenizer
tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))
model, ids = unibody.AutoModelForCausalLM.from_pretrained(work), tokenizer.encode("t5 t9 t3").ids
answers["expected"] = tokenizer.decode(model.generate(torch.tensor([ids]), max_new_tokens=5)[0].tolist())
answers["folder"] = command("run", work, "t5 t9 t3", "--max-new-tokens", 5)
answers["push"] = command("push", work, "alice/tiny")[0]
answers["hub"] = command("run", "alice/tiny", "t5 t9 t3", "--max-new-tokens", 5, "--revision", "main")
answers["drawn"] = command("run", work, "t5 t9 t3", "--max-new-tokens", 5, "--temperature", 0.7, "--seed", 1)
answers["none"] = command("run", "alice/none", "t5")
""")  # fmt: skip
    status, text, _ = found["folder"]
    assert (status, f"t5 t9 t3{text.rstrip()}") == (0, found["expected"])
    assert found["hub"][:2] == [0, text]
    assert found["drawn"][0] == 0
    assert found["none"][0] == 1
    assert "alice/none is no repository that you can see" in found["none"][2]


def test_quantize(client: Client) -> None:
    """From the Hub, at a revision; the chat template comes along, and a repository that is not there is said to be none."""
    found = client(COMMAND + """
sys.path.insert(0, sys.argv[2])
from oracle.quantization import inputs
work = inputs.save_llama(Path("work").absolute())
(work / "chat_template.jinja").write_text("{{ messages }}")
answers["push"] = command("push", work, "alice/tiny", "--revision", "next")[0]
answers["quantize"] = command("quantize", "alice/tiny", "eetq", "packed", "--revision", "next")
answers["files"] = sorted(file.name for file in Path("packed").iterdir() if file.name in ("chat_template.jinja", "config.json", "tokenizer.json"))
answers["none"] = command("quantize", "alice/none", "eetq", "other")
""")  # fmt: skip
    assert (found["push"], found["quantize"][0]) == (0, 0), found
    assert found["files"] == ["chat_template.jinja", "config.json", "tokenizer.json"]
    assert found["none"][0] == 1
    assert "alice/none is no repository that you can see" in found["none"][2]


def test_what_the_readme_shows(hub: Hub, client: Client, tmp_path: Path) -> None:
    """Each command is there and explains itself; the commands and the code of the library's part run as they are written."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("you/", "alice/")
    begin, end = text.index('pip install "unibody[models]"'), text.index("## Models")
    part = text[begin:end]
    commands = re.findall(r"^unibody ((?:run|chat|card|push) .*?)(?: *#.*)?$", part, re.MULTILINE)
    assert [line.partition(" ")[0] for line in commands] == ["run", "chat", "card", "push"]
    models = {
        "owner/name": write_llama(tmp_path / "smollm2-awq"),
        "owner/reviews": write_bert(tmp_path / "reviews", "BertForSequenceClassification"),
    }
    for name, folder in models.items():
        hub.repositories[name] = Repository()
        files = {file.name: file.read_bytes() for file in folder.iterdir()}
        hub.repositories[name].commit(files, "first", "main", None)
    (tmp_path / "reviews.txt").write_text("the cat sat on the mat\na big red dog ran\n")
    generate, classify = blocks(part)
    found = client(
        COMMAND.replace("arguments])", "arguments], input='Who?\\n/exit\\n')")
        + f"""
import shlex
for line in {commands!r}:
    words = shlex.split(line)
    answers[words[0]] = [command(words[0], "--help")[0], *command(*words, *(["--max-new-tokens", "4"] if words[0] in ("run", "chat") else []))]
exec({generate!r})
exec({classify.replace("owner/name", "owner/reviews")!r})
answers["last"] = answer["label"]
"""
    )
    assert [found[name][:2] for name in ("run", "chat", "card", "push")] == [[0, 0]] * 4, found
    assert found["last"].startswith("LABEL_")
    assert hub.repositories.keys() == {"owner/name", "owner/reviews", "alice/smollm2-awq", "alice/name"}
