"""One class a library: the same flow, trained, scored and drawn from as its users do it.

Every class has ``build(model, n_features)``, ``n_parameters()``, ``train(X, steps)`` (AdamW or Adam on
batches of 512 drawn from X; returns the seconds), ``log_prob(X)`` and ``sample(n)``. Libraries are
imported when their class is made, since each lives in an environment of its own.
"""

import math
import time

import numpy as np

BATCH = 512
LAYERS = {"nsf_ar": 5, "nsf_c": 5, "maf": 5, "realnvp": 8}
HIDDEN, BINS = (128, 128), 8


class Densekit:
    """``fit`` and ``score_samples``: codec, held-out rows, average of weights and all."""

    def __init__(self, dtype="float32", **settings):
        import densekit

        self.densekit, self.settings = densekit, {"dtype": dtype, **settings}

    def build(self, model, n_features):
        d = self.densekit
        settings = {
            "n_transforms": LAYERS[model],
            "hidden_sizes": HIDDEN,
            "activation": "relu",  # what the others have
            "batch_size": BATCH,
            "patience": None,
            "random_state": 0,
            "device": "cpu",
            "verbose": False,
            **self.settings,
        }
        if model == "realnvp":
            self.flow = d.RealNVP(**settings)
        elif model == "maf":
            self.flow = d.MaskedAutoregressiveFlow(**settings)
        else:
            spline = {"n_bins": BINS, "coupling": model == "nsf_c", "linear": False}
            self.flow = d.NeuralSplineFlow(**spline, **settings)

    def n_parameters(self):
        return sum(p.numel() for p in self.flow.module_.parameters())

    def train(self, X, steps):
        self.flow.set_params(max_steps=steps)
        start = time.perf_counter()
        self.flow.fit(X)
        return time.perf_counter() - start

    def log_prob(self, X):
        return self.flow.score_samples(X)

    def sample(self, n):
        return self.flow.sample(n)

    def quality(self, train, valid, test, seconds, seed):
        """Mean test nats of the default flow after so many seconds; it holds out rows of its own."""
        flow = self.densekit.NeuralSplineFlow(
            max_time=seconds, max_steps=10**7, random_state=seed, device="cpu", verbose=False
        )
        return flow.fit(np.concatenate([train, valid])).score(test)


class Torch:
    """What the libraries on torch share: the loop that their documentation shows."""

    def __init__(self):
        import torch

        torch.set_num_threads(1)
        torch.manual_seed(0)
        self.torch = torch

    def n_parameters(self):
        return sum(p.numel() for p in self.parameters())

    def parameters(self):
        return list(self.flow.parameters())

    def train(self, X, steps):
        torch = self.torch
        X = torch.from_numpy(X)
        optimizer = torch.optim.Adam(self.parameters(), lr=1e-3)
        start = time.perf_counter()
        for step in range(steps):
            first = step * BATCH % (len(X) - BATCH)
            loss = -self.scores(X[first : first + BATCH]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return time.perf_counter() - start

    def log_prob(self, X):
        with self.torch.no_grad():
            return self.scores(self.torch.from_numpy(X)).numpy()

    def sample(self, n):
        with self.torch.no_grad():
            return self.draws(n).numpy()

    def quality(self, train, valid, test, seconds, seed):
        """Mean test nats of the weights that scored best on the validation rows, looked at twenty
        times; the looks are not counted."""
        torch = self.torch
        torch.manual_seed(seed)
        mean, spread = train.mean(0), train.std(0)
        x, v, t = (
            torch.tensor((part - mean) / spread, dtype=torch.float32)
            for part in (train, valid, test)
        )
        self.build("nsf_ar", x.shape[1])
        optimizer = torch.optim.Adam(self.parameters(), lr=1e-3)
        best, weights, spent, look = -math.inf, None, 0.0, seconds / 20
        while spent < seconds:
            first = time.perf_counter()
            rows = torch.randint(len(x), (min(BATCH, len(x)),))
            optimizer.zero_grad()
            (-self.scores(x[rows]).mean()).backward()
            optimizer.step()
            spent += time.perf_counter() - first
            if spent >= look:
                look += seconds / 20
                score = float(self.log_prob(v.numpy()).mean())
                if score > best:
                    best = score
                    weights = {k: w.clone() for k, w in self.flow.state_dict().items()}
        self.flow.load_state_dict(weights)
        scores = np.concatenate([self.log_prob(part.numpy()) for part in t.split(4096)])
        return float(scores.mean() - np.log(spread).sum())


class Zuko(Torch):
    def build(self, model, n_features):
        import zuko

        options = {"transforms": LAYERS[model], "hidden_features": HIDDEN}
        if model == "nsf_ar":
            self.flow = zuko.flows.NSF(n_features, 0, bins=BINS, **options)
        elif model == "nsf_c":
            self.flow = zuko.flows.Flow(
                [self.coupling(zuko, n_features, i) for i in range(LAYERS[model])],
                zuko.lazy.UnconditionalDistribution(
                    zuko.distributions.DiagNormal,
                    self.torch.zeros(n_features),
                    self.torch.ones(n_features),
                    buffer=True,
                ),
            )
        elif model == "maf":
            self.flow = zuko.flows.MAF(n_features, 0, **options)
        else:
            self.flow = zuko.flows.RealNVP(n_features, 0, **options)

    def coupling(self, zuko, n_features, i):
        mask = self.torch.arange(n_features) % 2 == i % 2
        shapes = [(BINS,), (BINS,), (BINS - 1,)]
        return zuko.flows.GeneralCouplingTransform(
            n_features,
            0,
            mask,
            zuko.transforms.MonotonicRQSTransform,
            shapes,
            hidden_features=HIDDEN,
        )

    def scores(self, X):
        return self.flow().log_prob(X)

    def draws(self, n):
        return self.flow().sample((n,))


class Nflows(Torch):
    def build(self, model, n_features):
        import warnings

        warnings.simplefilter("ignore")
        from nflows import distributions, flows, transforms
        from nflows.nn import nets

        F = self.torch.nn.functional
        layers = []
        for i in range(LAYERS[model]):
            layers.append(transforms.ReversePermutation(n_features))
            spline = {"num_bins": BINS, "tails": "linear", "tail_bound": 5.0}
            masked = {"hidden_features": 128, "num_blocks": 1, "use_residual_blocks": False}
            mask = [(i + d) % 2 for d in range(n_features)]

            class Net(nets.MLP):
                def __init__(self, a, b):
                    super().__init__((a,), (b,), list(HIDDEN), activation=F.relu)

                def forward(self, inputs, context=None):
                    return super().forward(inputs)

            net = Net

            if model == "nsf_ar":
                part = transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform
                layers.append(part(n_features, **masked, **spline))
            elif model == "maf":
                layers.append(transforms.MaskedAffineAutoregressiveTransform(n_features, **masked))
            elif model == "nsf_c":
                part = transforms.PiecewiseRationalQuadraticCouplingTransform
                layers.append(part(mask, net, **spline))
            else:
                layers.append(transforms.AffineCouplingTransform(mask, net))
        base = distributions.StandardNormal([n_features])
        self.flow = flows.Flow(transforms.CompositeTransform(layers), base)

    def scores(self, X):
        return self.flow.log_prob(X)

    def draws(self, n):
        return self.flow.sample(n)


class Pyro(Torch):
    def build(self, model, n_features):
        import pyro.distributions as dist
        from pyro.distributions import transforms as T
        from pyro.nn import AutoRegressiveNN

        torch, self.parts = self.torch, []
        if model == "nsf_ar":
            for _ in range(LAYERS[model]):
                net = AutoRegressiveNN(
                    n_features, HIDDEN, param_dims=[BINS, BINS, BINS - 1], skip_connections=False
                )
                self.parts.append(
                    T.SplineAutoregressive(n_features, net, BINS, 5.0, order="quadratic").inv
                )
        elif model == "maf":
            for _ in range(LAYERS[model]):
                net = AutoRegressiveNN(n_features, HIDDEN)
                self.parts.append(T.AffineAutoregressive(net).inv)
        elif model == "realnvp":
            for _ in range(LAYERS[model]):
                self.parts.append(T.affine_coupling(n_features, list(HIDDEN)).inv)
                self.parts.append(T.permute(n_features, torch.arange(n_features).flip(0)))
        else:
            raise NotImplementedError("Pyro's coupling spline is left out: another mask and box")
        base = dist.Normal(torch.zeros(n_features), torch.ones(n_features)).to_event(1)
        self.flow = dist.TransformedDistribution(base, self.parts)

    def parameters(self):
        modules = [getattr(part, "_inv", None) or part for part in self.parts]
        modules = [m for m in modules if isinstance(m, self.torch.nn.Module)]
        return list(self.torch.nn.ModuleList(modules).parameters())

    def scores(self, X):
        self.flow.clear_cache()
        # A fresh tensor: the transforms cache by the object they are given.
        return self.flow.log_prob(X.clone())

    def draws(self, n):
        return self.flow.sample((n,))


class Flowjax:
    """Compiled by JAX before it is timed; the compiling is not counted."""

    def build(self, model, n_features):
        import equinox as eqx
        import jax
        import jax.numpy as jnp
        import optax
        from flowjax import bijections, distributions, flows

        self.jax, self.jnp, self.eqx = jax, jnp, eqx
        make = (
            flows.masked_autoregressive_flow if model in ("nsf_ar", "maf") else flows.coupling_flow
        )
        affine = {}
        if model in ("nsf_ar", "nsf_c"):
            affine = {
                "transformer": bijections.RationalQuadraticSpline(knots=BINS - 1, interval=5)
            }
        self.flow = make(
            jax.random.key(0),
            base_dist=distributions.Normal(jnp.zeros(n_features)),
            flow_layers=LAYERS[model],
            nn_width=HIDDEN[0],
            nn_depth=len(HIDDEN),
            **affine,
        )
        import paramax

        self.parts = eqx.partition(
            self.flow,
            eqx.is_inexact_array,
            is_leaf=lambda leaf: isinstance(leaf, paramax.NonTrainable),
        )
        optimizer = optax.adam(1e-3)

        def loss(params, static, X):
            return -paramax.unwrap(eqx.combine(params, static)).log_prob(X).mean()

        @eqx.filter_jit
        def step(params, static, state, X):
            value, grads = eqx.filter_value_and_grad(loss)(params, static, X)
            updates, state = optimizer.update(grads, state, params)
            return eqx.apply_updates(params, updates), state, value

        self.step, self.state = step, optimizer.init(self.parts[0])
        self.scores = eqx.filter_jit(lambda flow, X: flow.log_prob(X))
        self.draws = eqx.filter_jit(lambda flow, key, n: flow.sample(key, (n,)))

    def n_parameters(self):
        leaves = self.jax.tree_util.tree_leaves(self.parts[0])
        return sum(math.prod(leaf.shape) for leaf in leaves)

    def train(self, X, steps):
        params, static = self.parts
        X = self.jnp.asarray(X)
        start = time.perf_counter()
        for step in range(steps):
            first = step * BATCH % (len(X) - BATCH)
            params, self.state, value = self.step(
                params, static, self.state, X[first : first + BATCH]
            )
        self.jax.block_until_ready(value)
        seconds = time.perf_counter() - start
        self.parts = (params, static)
        self.flow = self.eqx.combine(params, static)
        return seconds

    def log_prob(self, X):
        return np.asarray(self.scores(self.flow, self.jnp.asarray(X)))

    def sample(self, n):
        return np.asarray(self.draws(self.flow, self.jax.random.key(1), n))


LIBRARIES = {
    "densekit": Densekit,
    "zuko": Zuko,
    "nflows": Nflows,
    "pyro": Pyro,
    "flowjax": Flowjax,
}
