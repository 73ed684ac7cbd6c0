"""One folder for each task, with all that differs between tasks; the rest of the package asks a task's `TaskKind`.

A folder has two halves. `config.py` (names the task's parts, without torch) and `task.py` (losses, predictions, metrics) are what
a training needs. `findings/` is what becomes of predictions: rows, explanation, evaluation; it stands on top of the rooms
prediction/ and evaluation/. A new task is a new folder and a line in `known.TASKS`.
"""
