"""Train a model written as for PyTorch with JAX, and save it to a file that PyTorch can load.

    python examples/train_with_jax.py FILE

`functional_call` turns the model into a function of its parameters; JAX compiles and differentiates this function, and the
optimizer applies the gradients. Needs the packages jax and array-api-compat, not torch.
"""

import sys

import jax
import numpy as np

import statedict
from statedict import nn


class Regression(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1))

    def forward(self, x: jax.Array) -> jax.Array:
        return self.layers(x)


def main(file: str) -> None:
    nn.manual_seed(0)
    model = Regression().to(jax.numpy)
    optimizer = nn.optim.AdamW(model.named_parameters(), lr=0.01)
    x = jax.numpy.asarray(np.random.default_rng(0).uniform(-1, 1, (256, 2)).astype(np.float32))
    y = x[:, :1] * x[:, 1:]

    @jax.jit
    @jax.value_and_grad
    def step(parameters: dict[str, jax.Array]) -> jax.Array:
        return ((nn.functional_call(model, parameters, x) - y) ** 2).mean()

    for epoch in range(301):
        loss, gradients = step(dict(model.state_dict()))
        optimizer.step(grads=gradients)
        if epoch % 100 == 0:
            print(f"epoch {epoch}: loss {loss:.4f}")
    statedict.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)


if __name__ == "__main__":
    main(sys.argv[1])
