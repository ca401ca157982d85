# SPDX-License-Identifier: Apache-2.0
"""The operators of libmolfuse_torch under PyTorch's own tools, on the CPU: gradcheck against finite differences in f64, opcheck (schema,
fake tensors, registration of autograd, AOTAutograd with dynamic shapes), and torch.compile without a graph break against eager calls.
Every operator that the library registers must have a case: one without fails test_every_operator_has_a_case.

    MOLFUSE_TORCH_LIBRARY=.../libmolfuse_torch.so python3 src/test/python/test_torch_ops.py
"""
import functools
import os
import pathlib
import sys
import tempfile
import unittest

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

LIBRARY = pathlib.Path(os.environ["MOLFUSE_TORCH_LIBRARY"])
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "main/python"))
import molfuse_torch  # noqa: E402

molfuse_torch.load(LIBRARY)
ops = torch.ops.molfuse

OPCHECKS = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
# The parts that operators are made of, which callers do not see: their gradients are in the whole's Function.
PART_OPCHECKS = ("test_schema", "test_faketensor")


class Case:
    """A call of an operator. make(n) gives its inputs with sizes that grow with n, so that a compiled graph sees several sizes."""

    def __init__(self, name, make, operator=None, *, differentiable=True, inplace=False):
        self.name = name
        self.make = make
        self.operator = operator or getattr(ops, name.split()[0])
        self.differentiable = differentiable
        self.inplace = inplace  # writes tensors it is given

    def inputs(self, n=0, dtype=torch.float64):
        torch.manual_seed(n)
        args, kwargs = self.make(n)

        def cast(x):
            if not isinstance(x, torch.Tensor) or x.dtype != torch.float64:
                return x
            return x.to(torch.float32 if getattr(x, "is_statistic", False) and dtype.itemsize < 4 else dtype)
        return tree_map(cast, args), kwargs


def normal(*sizes, grad=True):
    return torch.randn(*sizes, dtype=torch.float64).requires_grad_(grad)


def detached(inputs):
    """Fresh leaves of the same numbers and strides."""
    def fresh(x):
        return x.detach().clone().requires_grad_(x.requires_grad) if isinstance(x, torch.Tensor) else x
    return tree_map(fresh, inputs)


def leaves_of(inputs):
    return [x for x in tree_flatten(inputs)[0] if isinstance(x, torch.Tensor) and x.requires_grad]


def differentiable_of(results):
    return [x for x in tree_flatten(results)[0] if isinstance(x, torch.Tensor) and x.requires_grad]


# ---- the cases: several where an operator has forms of its own


def attention(n, **kwargs):
    query, key = 3 + n, 5 + 2 * n
    return (normal(2, 2, query, 8), normal(2, 2, key, 8), normal(2, 2, key, 8)), kwargs


def attention_bias(n):
    args, _ = attention(n)
    return (*args, normal(2, 1, 3 + n, 5 + 2 * n), normal(2, 5), torch.tensor([5, 2])), {}


def attention_strided(n):
    return tuple(normal(2, 4 + n, 3, 8).transpose(1, 2).detach().requires_grad_() for _ in range(3)), {}


def attention_varlen(n):
    starts = torch.tensor([0, 3, 3, 7 + n], dtype=torch.int32)
    return (*(normal(7 + n, 2, 8) for _ in range(3)), starts, starts, 4 + n, 4 + n, normal(2, 3)), {"causal": True}


def attention_decode(n):
    rest = [normal(2, 2, 8, grad=False) for _ in range(3)]
    return (rest[0], *(normal(2, 2, 6 + n, 8, grad=False) for _ in range(2)), torch.tensor([3, 0]), *rest[1:]), {}


def edges(n):
    nodes = 5 + n
    return torch.randint(nodes, (9 + 2 * n,)), torch.randint(nodes, (9 + 2 * n,)), nodes


def graph_attention(n, **kwargs):
    source, target, nodes = edges(n)
    return (*(normal(nodes, 2, 3) for _ in range(3)), *ops.graph_from_edges(source, target, nodes)[:5]), kwargs


def graph_transpose(n):
    return ops.graph_from_edges(*edges(n))[:2], {}


def loss_targets(n):
    targets = torch.randint(1, 6, (3, 4 + n))
    targets[0, 2:] = 0
    return targets


def vae_loss(n, **kwargs):
    return (normal(3, 4 + n, 6), loss_targets(n), normal(3, 5), normal(3, 5)), kwargs


def vae_loss_class_second(n):
    return (normal(3, 6, 4 + n), loss_targets(n)), {"class_second": True}


def linear_vae_loss(n, **kwargs):
    return (normal(3, 4 + n, 8), normal(6, 8), normal(6), loss_targets(n), normal(3, 5), normal(3, 5)), kwargs


def epilogue(n, training=True, **kwargs):
    # running statistics are written in training; then gradcheck, which calls again and again, may have none
    statistics = (None, None) if training else (normal(4, grad=False), normal(4, grad=False).exp())
    for x in statistics[:0 if training else 2]:
        x.is_statistic = True  # S, whatever T is
    return (normal(6 + n, 4), normal(6 + n, 4), normal(4), normal(4), *statistics, training), kwargs


def graph_ptr(n):
    return torch.tensor([0, 2, 2, 6 + n])


def epilogue_into(n):
    args, _ = epilogue(n)
    return (torch.zeros(3, 9, dtype=torch.float64), 4, graph_ptr(n), *args), {"dropout_p": 0.3, "seed": 5}


def latent_concat(n):
    return ([normal(6 + n, 3), normal(6 + n, 2)], graph_ptr(n)), {}


def latent_concat_into(n):
    return (torch.zeros(3, 8, dtype=torch.float64), 2, normal(6 + n, 4), graph_ptr(n)), {}


def latent_concat_pooled(n):
    return ([normal(3 + n, 3), normal(3 + n, 2)],), {}


def reparameterize(n):
    return (normal(3 + n, 5), normal(3 + n, 5)), {"seed": 11}


def parameters(n, count=6):
    lists = [[torch.randn(3 + n, 2).abs(), torch.randn(4).abs()] for _ in range(count)]
    return lists, [torch.ones(()) for _ in range(2)]


def amp_unscale(n):
    return (parameters(n, 1)[0][0], torch.zeros(()), torch.tensor(0.25)), {}


def amp_update_scale(n):
    return (torch.tensor(8.0), torch.tensor(1, dtype=torch.int32), torch.zeros(())), {"growth_interval": 2}


def fused_adamw(n):
    lists, steps = parameters(n, 5)
    return (*lists, steps, 0.01), {"amsgrad": True, "grad_scale": torch.tensor(2.0), "found_inf": torch.zeros(())}


def clip_grad_norm(n):
    return (parameters(n, 1)[0][0], 0.5), {}


CASES = [
    Case("attention", attention),
    Case("attention causal dropout", lambda n: attention(n, causal=True, dropout_p=0.4, seed=7)),
    Case("attention bias", attention_bias),
    Case("attention strided", attention_strided),
    Case("attention_varlen", attention_varlen),
    Case("attention_decode", attention_decode, differentiable=False, inplace=True),
    Case("graph_attention", graph_attention),
    Case("graph_attention dropout", lambda n: graph_attention(n, dropout_p=0.4, seed=7)),
    Case("graph_from_edges", lambda n: (edges(n), {}), differentiable=False),
    Case("graph_transpose", graph_transpose, differentiable=False),
    Case("vae_loss", vae_loss),
    Case("vae_loss sum", lambda n: vae_loss(n, reduction="sum", beta=0.3)),
    Case("vae_loss class second", vae_loss_class_second),
    Case("vae_loss_unreduced", vae_loss),
    Case("linear_vae_loss", linear_vae_loss),
    Case("linear_vae_loss sum", lambda n: linear_vae_loss(n, reduction="sum")),
    Case("linear_vae_loss_unreduced", linear_vae_loss),
    Case("encoder_epilogue", epilogue),
    Case("encoder_epilogue evaluation", lambda n: epilogue(n, training=False)),
    Case("encoder_epilogue dropout", lambda n: epilogue(n, dropout_p=0.3, seed=5)),
    Case("encoder_epilogue_into", epilogue_into, inplace=True),
    Case("latent_concat", latent_concat),
    Case("latent_concat_into", latent_concat_into, inplace=True),
    Case("latent_concat_pooled", latent_concat_pooled),
    Case("reparameterize", reparameterize),
    Case("amp_unscale_", amp_unscale, differentiable=False, inplace=True),
    Case("amp_update_scale_", amp_update_scale, differentiable=False, inplace=True),
    Case("fused_adamw_", fused_adamw, differentiable=False, inplace=True),
    Case("clip_grad_norm_", clip_grad_norm, differentiable=False, inplace=True),
]


def results_and_gradients(call, case, inputs):
    """What a call gives, what it leaves in tensors that it writes, and the gradients of a weighted sum."""
    args, kwargs = inputs = detached(inputs)
    leaves = leaves_of(inputs)  # before the call: a tensor that is written in place gets a history
    results = call(*args, **kwargs)
    outputs = [x for x in tree_flatten(results)[0] if isinstance(x, torch.Tensor)]
    written = [x for x in tree_flatten(inputs)[0] if isinstance(x, torch.Tensor)] if case.inplace else []
    gradients = []
    if case.differentiable:
        roots = differentiable_of(results)
        weights = [torch.linspace(0.5, 1.5, x.numel(), dtype=torch.float64).reshape(x.shape).to(x.dtype) for x in roots]
        gradients = torch.autograd.grad(roots, leaves, weights, allow_unused=True)
    return [x if x is None else x.detach() for x in (*outputs, *written, *gradients)]


def for_each(cases):
    """A test of one case becomes one of all, each a subtest."""
    def decorate(test):
        @functools.wraps(test)
        def run(self):
            for case in cases:
                with self.subTest(case.name):
                    torch.compiler.reset()
                    test(self, case)
        return run
    return decorate


DIFFERENTIABLE = [case for case in CASES if case.differentiable]


class TorchOps(unittest.TestCase):
    def same(self, got, expected):
        self.assertEqual(len(got), len(expected))
        for a, b in zip(got, expected):
            self.assertEqual(a is None, b is None)
            if a is not None:
                torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)

    def test_every_operator_has_a_case(self):
        registered = {name.removeprefix("molfuse::") for name in torch._C._dispatch_get_all_op_names() if name.startswith("molfuse::")}
        self.assertEqual({case.name.split()[0] for case in CASES}, {name for name in registered if name.split(".")[0][0] != "_"})
        # _vae_loss_scale_ is called on devices only.
        self.assertEqual({name for name in registered if name[0] == "_"} - {"_vae_loss_scale_"}, set(self.parts()))

    @for_each(DIFFERENTIABLE)
    def test_gradients_are_those_of_finite_differences(self, case):
        args, kwargs = case.inputs()
        flat, spec = tree_flatten(args)
        places = [n for n, x in enumerate(flat) if isinstance(x, torch.Tensor) and x.requires_grad]

        def call(*leaves):
            values = [x.clone() if isinstance(x, torch.Tensor) else x for x in flat]
            for n, leaf in zip(places, leaves):
                values[n] = leaf
            return tuple(differentiable_of(case.operator(*torch.utils._pytree.tree_unflatten(values, spec), **kwargs)))

        torch.autograd.gradcheck(call, [flat[n] for n in places])

    @for_each(DIFFERENTIABLE)
    def test_second_derivatives_are_refused(self, case):
        args, kwargs = inputs = case.inputs()
        gradients = torch.autograd.grad([x.sum() for x in differentiable_of(case.operator(*args, **kwargs))], leaves_of(inputs),
                                        create_graph=True, allow_unused=True)
        own = [x.sum() for x in gradients if x is not None and x.requires_grad]
        with self.assertRaisesRegex(RuntimeError, "double backward of molfuse::"):
            torch.autograd.grad(own, leaves_of(inputs), allow_unused=True)

    @for_each(CASES)
    def test_opcheck(self, case):
        args, kwargs = case.inputs(dtype=torch.float32)
        torch.library.opcheck(case.operator.default, args, kwargs, test_utils=OPCHECKS)

    def parts(self):
        """Operators that others call, with arguments of such a call."""
        calls = {}

        class Record(TorchDispatchMode):
            def __torch_dispatch__(self, function, types, args=(), kwargs=None):
                name = function.name()
                if name.startswith("molfuse::_"):
                    copy = lambda x: x.detach().clone() if isinstance(x, torch.Tensor) else x
                    calls.setdefault(name.removeprefix("molfuse::"), []).append((function, tree_map(copy, args), kwargs or {}))
                return function(*args, **(kwargs or {}))

        for case in CASES:
            args, kwargs = inputs = case.inputs(dtype=torch.float32)
            with Record():
                results_and_gradients(case.operator, case, inputs)
        return calls

    def test_opcheck_of_the_parts(self):
        for name, calls in self.parts().items():
            for function, args, kwargs in calls:
                with self.subTest(name):
                    torch.library.opcheck(function, args, kwargs, test_utils=PART_OPCHECKS)

    @for_each(CASES)
    def test_compiled_is_eager(self, case):
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            compiled = torch.compile(lambda *args, **kwargs: case.operator(*args, **kwargs), fullgraph=True, dynamic=False, backend="aot_eager")
            inputs = case.inputs(dtype=dtype)
            self.same(results_and_gradients(compiled, case, inputs), results_and_gradients(case.operator, case, inputs))

    @for_each(CASES)
    def test_compiled_with_dynamic_shapes_is_eager(self, case):
        compiled = torch.compile(lambda *args, **kwargs: case.operator(*args, **kwargs), fullgraph=True, dynamic=True, backend="aot_eager")
        for n in range(4):
            inputs = case.inputs(n, torch.float32)
            self.same(results_and_gradients(compiled, case, inputs), results_and_gradients(case.operator, case, inputs))

    def test_a_traced_graph_draws_its_seeds_when_it_runs(self):
        mean, log_var = normal(40, 3), normal(40, 3)

        @torch.compile(fullgraph=True, backend="aot_eager")
        def draw(mean, log_var):
            return ops.reparameterize(mean, log_var)

        def noise():
            z = draw(mean, log_var)
            # Backward makes the same noise again: the derivative by log_var is half of what forward added to mean.
            torch.testing.assert_close(torch.autograd.grad(z.sum(), log_var)[0], (z - mean).detach() / 2)
            return z.detach()

        torch.manual_seed(3)
        first, second = noise(), noise()
        self.assertFalse(torch.equal(first, second))
        torch.manual_seed(3)
        self.same([noise(), noise()], [first, second])
        for call in (lambda x: ops.attention(x, x, x, dropout_p=0.5),
                     lambda x: ops.encoder_epilogue(x[0, 0], None, None, None, None, None, True, dropout_p=0.5),
                     lambda x: ops.graph_attention(x[0], x[0], x[0], *ops.graph_from_edges(*edges(3))[:5], dropout_p=0.5)):
            x, compiled = torch.randn(1, 8, 8, 8), torch.compile(call, fullgraph=True, backend="aot_eager")
            self.assertFalse(torch.equal(compiled(x), compiled(x)))

    def test_numbers_that_change_do_not_compile_again(self):
        def call(x, seed, length):
            starts = torch.tensor([0, 3, 8], dtype=torch.int32)
            return ops.attention_varlen(x, x, x, starts, starts, length, length, dropout_p=0.5, seed=seed, offset=seed)

        x, compiled = torch.randn(8, 2, 8), torch.compile(call, fullgraph=True, backend="aot_eager")
        compiled(x, 2, 5), compiled(x, 3, 6)
        with torch.compiler.set_stance("fail_on_recompile"):
            for seed, length in ((7, 8), (101, 9), (-5, 30)):
                self.same([compiled(x, seed, length)], [call(x, seed, length)])

    def test_slots_of_one_tensor_in_a_traced_graph(self):
        def call(first, second, pooled):
            features, pooled = ops.encoder_epilogue_into(pooled, 0, graph_ptr(0), first, None, None, None, None, None, True)
            return ops.latent_concat_into(pooled, 4, features * second, graph_ptr(0))

        def results(call):
            inputs = [x.detach().requires_grad_() for x in (first, second)]
            out = call(*inputs, torch.zeros(3, 8, dtype=torch.float64))
            return [out.detach(), *torch.autograd.grad(out, inputs, torch.arange(24.0).reshape(3, 8).double())]

        first, second = normal(6, 4), normal(6, 4)
        self.same(results(torch.compile(call, fullgraph=True, backend="aot_eager")), results(call))

    def test_logits_may_be_an_input_of_a_traced_graph_though_their_memory_is_given_away(self):
        hidden, weight, targets = normal(3, 4, 8), normal(6, 8), loss_targets(0)

        def gradients(compiled, **kwargs):
            def loss(logits):
                return ops.vae_loss(logits, targets, **kwargs)[0]
            call = torch.compile(loss, fullgraph=True, backend="aot_eager") if compiled else loss
            return torch.autograd.grad(call(hidden @ weight.T), (hidden, weight))

        traced = gradients(True, inplace_backward=True)
        self.same(traced, gradients(False))  # the permission is not made use of
        torch.testing.assert_close(traced, gradients(False, inplace_backward=True))

    @for_each(DIFFERENTIABLE)
    def test_autocast(self, case):
        lower = {"attention", "attention_varlen", "graph_attention"}
        statistics = {"vae_loss", "vae_loss_unreduced", "linear_vae_loss", "linear_vae_loss_unreduced"}
        keeps = {"encoder_epilogue", "encoder_epilogue_into", "latent_concat", "latent_concat_into", "latent_concat_pooled", "reparameterize"}
        self.assertEqual(lower | statistics | keeps, {case.name.split()[0] for case in DIFFERENTIABLE})
        inputs = case.inputs(dtype=torch.float32)
        compiled = torch.compile(lambda *args, **kwargs: case.operator(*args, **kwargs), fullgraph=True, backend="aot_eager")
        with torch.autocast("cpu", torch.bfloat16):
            eager, traced = (results_and_gradients(call, case, inputs) for call in (case.operator, compiled))
        self.assertEqual(eager[0].dtype, torch.bfloat16 if case.name.split()[0] in lower else torch.float32)
        self.same(traced, eager)

    def test_a_model_compiled_by_inductor_trains_as_it_does_eagerly(self):
        class Model(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.embed, self.project, self.latent = torch.nn.Linear(8, 48), torch.nn.Linear(16, 16), torch.nn.Linear(16, 8)
                self.bias = torch.nn.Parameter(torch.zeros(2, 9))
                self.vocabulary = torch.nn.Linear(20, 12)

            def forward(self, x, graph_ptr, targets):
                batch, length = targets.shape
                query, key, value = self.embed(x).view(batch, length, 3, 2, 8).permute(2, 0, 3, 1, 4)
                hidden = ops.attention(query, key, value, None, self.bias, causal=True).transpose(1, 2).reshape(batch * length, 16)
                pooled = hidden.new_empty(batch, 16)
                features, pooled = ops.encoder_epilogue_into(pooled, 0, graph_ptr, self.project(hidden), hidden, None, None, None, None, True)
                mean, log_var = self.latent(pooled).chunk(2, -1)
                z = ops.reparameterize(mean.contiguous(), log_var.contiguous(), seed=4)
                joint = torch.cat([features.view(batch, length, 16), z[:, None].expand(-1, length, -1)], -1)
                return ops.linear_vae_loss(joint, self.vocabulary.weight, self.vocabulary.bias, targets, mean, log_var, 0.1)[0]

        def losses(compiled):
            torch.manual_seed(0)
            model = Model()
            call = torch.compile(model, fullgraph=True) if compiled else model
            optimizer = torch.optim.SGD(model.parameters(), 0.1)
            result = []
            for step in range(6):
                batch, length = 3 + step % 3, 5 + step % 2
                loss = call(torch.randn(batch, length, 8), torch.arange(0, batch * length + 1, length), torch.randint(12, (batch, length)))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                result.append(loss.detach())
            return torch.stack(result)

        torch.testing.assert_close(losses(True), losses(False))

    def test_another_version_of_pytorch_is_named(self):
        own = molfuse_torch.libtorch_version(LIBRARY)
        self.assertEqual(own, torch.__version__.split("+")[0])
        with tempfile.TemporaryDirectory() as folder:
            other = pathlib.Path(folder) / "libmolfuse_torch.so"
            other.write_bytes(LIBRARY.read_bytes().replace(b"for libtorch " + own.encode(), b"for libtorch 1." + own.encode()[2:]))
            with self.assertRaisesRegex(ImportError, rf"built for libtorch 1\..* PyTorch {own}.*MOLFUSE_TORCH_ROOT"):
                molfuse_torch.load(other)
            other.write_bytes(b"no library")
            with self.assertRaisesRegex(ImportError, "is no libmolfuse_torch"):
                molfuse_torch.load(other)
        with self.assertRaisesRegex(ImportError, "there is no"):
            molfuse_torch.load(pathlib.Path(folder) / "libmolfuse_torch.so")


if __name__ == "__main__":
    unittest.main()
