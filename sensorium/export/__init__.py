"""Export: model folders, language models and adapters in the layouts that other tools open."""
