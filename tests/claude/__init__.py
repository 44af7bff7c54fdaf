"""What a rendered project brings for Claude Code: the check, the permissions, the documents."""
