# Development tasks. They are defined in tools/run.py, which also works without make.
TASKS = tour test light explore matrix lint types systems imports docs check format coverage

.PHONY: $(TASKS) clean
$(TASKS):
	@python3 tools/run.py $@

clean:
	rm -rf .venv site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage* dist
