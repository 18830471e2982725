"""The oracle that is people: worklists out, masks and filled tables back, through files; see docs/annotation.md."""
