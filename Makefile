# One word per task; what each does is in tools/run.py, which works without make too.
TASKS = tour test lint types imports docs check format coverage

.PHONY: $(TASKS) clean
$(TASKS):
	@python3 tools/run.py $@

clean:
	rm -rf .venv site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage* dist
