"""Looks at serve.toml, where there is one, and agent.toml in a folder, by wsnode's own commands."""

import sys
from pathlib import Path

from wsnode.cli import main

folder = Path(sys.argv[1])
checks = {"serve.toml": ["serve", "--check"], "agent.toml": ["agent", "check"]}
sys.exit(
    max(main([*words, "--config", str(folder / name)]) for name, words in checks.items() if (folder / name).exists())
)
