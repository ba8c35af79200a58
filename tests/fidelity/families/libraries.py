"""Tables, models and graphs of the libraries that notebooks are full of."""
# ruff: noqa: E501 - a case is read as one line: what is run, what must hold

from fidelity.case import case

TITLE = "pandas, polars, pyarrow, scikit-learn and others"
EXAMPLES = "frames, estimators, pipelines, graphs, figures, images, tokenizers"
PRELUDE = "import warnings; warnings.simplefilter('ignore')\nimport numpy as np, pandas as pd, pyarrow as pa"

_PANDAS = {
    "a DataFrame": "pd.DataFrame({'a': [1, 2], 'b': [0.5, np.nan], 'c': ['x', None]})",
    "a Series with a name": "pd.Series([1, 2], name='s')",
    "a RangeIndex": "pd.RangeIndex(3, 30, 3)",
    "a MultiIndex": "pd.DataFrame({'v': [1, 2]}, index=pd.MultiIndex.from_tuples([('a', 1), ('b', 2)], names=['k', 'n']))",
    "columns of many levels": "pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([('x', 'a'), ('x', 'b')]))",
    "a categorical column": "pd.Series(['lo', 'hi', 'lo'], dtype=pd.CategoricalDtype(['lo', 'hi'], ordered=True))",
    "dates with a time zone": "pd.Series(pd.date_range('2026-01-01', periods=3, tz='Europe/Berlin'))",
    "a DatetimeIndex with a frequency": "pd.date_range('2026-01-01', periods=4, freq='h')",
    "periods": "pd.period_range('2026-01', periods=3, freq='M')",
    "intervals": "pd.interval_range(0, 3)",
    "time deltas": "pd.to_timedelta(['1h', '2h'])",
    "nullable integers": "pd.array([1, None, 3], dtype='Int64')",
    "nullable booleans": "pd.Series([True, None], dtype='boolean')",
    "strings": "pd.Series(['a', None], dtype='string')",
    "Arrow strings": "pd.Series(['a', None], dtype='string[pyarrow]')",
    "Arrow-backed integers": "pd.Series([1, None], dtype='int64[pyarrow]')",
    "sparse values": "pd.Series(pd.arrays.SparseArray([0, 0, 1]))",
    "an empty DataFrame": "pd.DataFrame(columns=['a', 'b'])",
    "duplicate columns": "pd.DataFrame([[1, 2]], columns=['a', 'a'])",
    "mixed objects": "pd.Series([1, 'a', [2], {'k': 3}])",
    "a Timestamp": "pd.Timestamp('2026-11-21 08:00', tz='UTC')",
    "NaT and NA": "[pd.NaT, pd.NA]",
    "offsets": "pd.offsets.BusinessDay(3)",
}
_ARROW = {
    "a Table": "pa.table({'a': [1, 2, None], 's': ['x', 'y', 'z']})",
    "a ChunkedArray": "pa.chunked_array([[1, 2], [3]])",
    "a RecordBatch": "pa.record_batch({'a': [1, 2]})",
    "a dictionary array": "pa.array(['a', 'b', 'a']).dictionary_encode()",
    "a struct array": "pa.array([{'x': 1, 'y': 'a'}, None])",
    "a list array": "pa.array([[1, 2], None, []])",
    "decimals": "pa.array([1, 2]).cast(pa.decimal128(25, 2))",
    "a sliced array": "pa.array(range(1000))[10:13]",
    "a schema with metadata": "pa.schema([('a', pa.int32())], metadata={'k': 'v'})",
    "a large column": "pa.array(range(50_000))",
    "a scalar": "pa.scalar(5)",
    "a Buffer": "pa.py_buffer(b'abc')",
}
_POLARS = {
    "a DataFrame": "pl.DataFrame({'a': [1, None, 3], 's': ['x', 'y', None], 'f': [0.5, float('nan'), -0.0]})",
    "a Series": "pl.Series('s', [1, 2, None], dtype=pl.Int16)",
    "dates with a time zone": "pl.Series([0, 3_600_000_000]).cast(pl.Datetime('us', 'Europe/Berlin'))",
    "categories": "pl.Series(['lo', 'hi', 'lo'], dtype=pl.Categorical)",
    "an Enum": "pl.Series(['lo', 'hi'], dtype=pl.Enum(['lo', 'hi']))",
    "lists and structs": "pl.DataFrame({'l': [[1, 2], []], 'st': [{'x': 1}, {'x': None}]})",
    "decimals": "pl.Series(['1.25', None]).cast(pl.Decimal(10, 2))",
    "an empty DataFrame": "pl.DataFrame(schema={'a': pl.Int8, 'b': pl.String})",
    "a dtype": "pl.List(pl.Struct({'a': pl.Int8}))",
}
_SKLEARN = {
    "logistic regression": ("sklearn.linear_model.LogisticRegression()", "predict_proba"),
    "a random forest": ("sklearn.ensemble.RandomForestClassifier(5, random_state=0)", "predict_proba"),
    "gradient boosting": ("sklearn.ensemble.HistGradientBoostingClassifier(max_iter=3)", "predict_proba"),
    "an SVM": ("sklearn.svm.SVC()", "decision_function"),
    "nearest neighbours": ("sklearn.neighbors.KNeighborsClassifier(2)", "predict_proba"),
    "a neural net": ("sklearn.neural_network.MLPClassifier((3,), max_iter=5, random_state=0)", "predict_proba"),
    "a decision tree": ("sklearn.tree.DecisionTreeClassifier()", "predict_proba"),
    "k-means": ("sklearn.cluster.KMeans(2, n_init=1, random_state=0)", "predict"),
    "PCA": ("sklearn.decomposition.PCA(1)", "transform"),
    "a scaler": ("sklearn.preprocessing.StandardScaler()", "transform"),
    "a pipeline with a lambda": (
        "sklearn.pipeline.make_pipeline(sklearn.preprocessing.FunctionTransformer(lambda x: x * 2), sklearn.linear_model.Ridge())",
        "predict",
    ),
    "a column transformer": (
        "sklearn.compose.ColumnTransformer([('s', sklearn.preprocessing.MinMaxScaler(), [0]), ('k', 'passthrough', [1])])",
        "transform",
    ),
    "a grid search": (
        "sklearn.model_selection.GridSearchCV(sklearn.linear_model.Ridge(), {'alpha': [0.1, 1.0]}, cv=2)",
        "predict",
    ),
    "a Gaussian process": ("sklearn.gaussian_process.GaussianProcessRegressor()", "predict"),
    "an isolation forest": ("sklearn.ensemble.IsolationForest(n_estimators=5, random_state=0)", "decision_function"),
}
_SKLEARN_IMPORT = "import sklearn.linear_model, sklearn.ensemble, sklearn.svm, sklearn.neighbors, sklearn.neural_network, sklearn.tree, sklearn.cluster, sklearn.decomposition, sklearn.preprocessing, sklearn.pipeline, sklearn.compose, sklearn.model_selection, sklearn.gaussian_process\nfit_x = np.array([[0., 1.], [1., 2.], [2., 0.], [3., 3.], [4., 1.], [5., 0.]]); fit_y = np.array([0, 0, 0, 1, 1, 1])"


def _sklearn(number: int, name: str, model: str, method: str):
    m = f"est_{number}"
    return case(name, f"{m} = {model}; {m}.fit(fit_x, fit_y)", same=f"{m}.{method}(fit_x)")


def _polars(number: int, name: str, made: str):
    p = f"pl_{number}"
    values = f"({p}.to_list() if hasattr({p}, 'to_list') else {p}.to_dict(as_series=False)) if hasattr({p}, 'to_arrow') else str({p})"
    return case(
        f"polars: {name}", f"{p} = {made}", same=[f"str(getattr({p}, 'schema', getattr({p}, 'dtype', {p})))", values]
    )


CASES = [
    *(case(name, f"frame_{i} = {made}", same=f"frame_{i}") for i, (name, made) in enumerate(_PANDAS.items())),
    *(
        case(
            f"pyarrow: {name}",
            f"arrow_{i} = {made}",
            same=f"arrow_{i}" + (".to_pybytes()" if name == "a Buffer" else ""),
        )
        for i, (name, made) in enumerate(_ARROW.items())
    ),
    case("polars", "import polars as pl", "pl.DataFrame({'a': [1]}).height == 1"),
    *(_polars(i, name, made) for i, (name, made) in enumerate(_POLARS.items())),
    case(
        "polars: an expression",
        "pl_frame = pl.DataFrame({'a': [1, 2, 3]}); pl_expr = (pl.col('a') * 2).sum()",
        "pl_frame.select(pl_expr).item() == 12",
    ),
    case(
        "polars: a lazy query",
        "pl_lazy = pl_frame.lazy().filter(pl.col('a') > 1).select(pl.col('a').sum())",
        "pl_lazy.collect().item() == 5",
    ),
    case(
        "polars: a query with a function of a cell",
        "def pl_twice(x): return 2 * x\npl_mapped = pl_frame.lazy().select(pl.col('a').map_elements(pl_twice, return_dtype=pl.Int64))",
        "pl_mapped.collect()['a'].to_list() == [2, 4, 6]",
    ),
    case("polars: a frame by two names", "pl_one = pl.DataFrame({'a': [1]}); pl_two = [pl_one]", "pl_two[0] is pl_one"),
    case(
        "a tokenizer",
        "import tokenizers\nword_level = tokenizers.models.WordLevel({'a': 0, 'b': 1, '<unk>': 2}, unk_token='<unk>')\ntokenizer = tokenizers.Tokenizer(word_level); tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace(); tokenizer.enable_padding(length=4)",
        "tokenizer.encode('a b zzz').ids == [0, 1, 2, 0] and tokenizer.get_vocab_size() == 3",
        "tokenizer.to_str()",
    ),
    case(
        "a tokenizer's encoding",
        "encoding = tokenizer.encode('b a')",
        "encoding.ids[:2] == [1, 0] and encoding.tokens[0] == 'b'",
    ),
    case(
        "a PIL image",
        "import PIL.Image\nimage = PIL.Image.fromarray(np.arange(48, dtype='u1').reshape(4, 4, 3)); image.info['dpi'] = (72, 72)",
        "image.info == {'dpi': (72, 72)} and image.size == (4, 4)",
        "(image.mode, image.tobytes())",
    ),
    case(
        "a PIL image with a palette",
        "paletted = image.convert('P', palette=PIL.Image.Palette.ADAPTIVE)",
        "paletted.mode == 'P'",
        "paletted.convert('RGB').tobytes()",
    ),
    case(
        "a matplotlib figure",
        "import matplotlib; matplotlib.use('agg')\nimport matplotlib.pyplot as plt, io\nfigure, axes = plt.subplots(figsize=(2, 2)); (line,) = axes.plot([1, 2, 4], label='loss'); axes.set_title('t')",
        [
            "axes is figure.axes[0] and line in axes.lines and axes.get_title() == 't'",
            "b = io.BytesIO(); figure.savefig(b, format='png')\nb.getvalue()[:4] == b'\\x89PNG'",
        ],
        "line.get_ydata()",
    ),
    case(
        "a colour map",
        "cmap_ = plt.get_cmap('viridis'); norm_ = matplotlib.colors.LogNorm(1, 10)",
        same="cmap_(norm_(3.))",
    ),
    case("scikit-learn's data", _SKLEARN_IMPORT, "fit_x.shape == (6, 2)", "fit_y"),
    *(_sklearn(i, name, *made) for i, (name, made) in enumerate(_SKLEARN.items())),
    case(
        "DataFrame attributes",
        "with_attrs = pd.DataFrame({'a': [1]}); with_attrs.attrs['source'] = 'here'",
        "with_attrs.attrs == {'source': 'here'}",
    ),
    case(
        "a frame and its column by name",
        "col_df = pd.DataFrame({'a': [1, 2]}); col_list = [col_df]",
        "col_list[0] is col_df",
    ),
    case("a frame in a frame", "nest = pd.Series([pd.DataFrame({'x': [1]}), None])", "nest[0].x[0] == 1"),
    case(
        "a group-by",
        "gb_df = pd.DataFrame({'k': ['a', 'b', 'a'], 'v': [1, 2, 3]}); gb = gb_df.groupby('k')",
        "gb.v.sum().to_dict() == {'a': 4, 'b': 2}",
    ),
    case("a rolling window", "roll = pd.Series(range(5)).rolling(2)", "roll.sum().tolist()[1:] == [1, 3, 5, 7]"),
    case("a styled frame", "styled = pd.DataFrame({'a': [1.234]}).style.format('{:.1f}')", "'1.2' in styled.to_html()"),
    case(
        "a subclass of DataFrame",
        """
class Table_(pd.DataFrame):
    _metadata = ['title']
    @property
    def _constructor(self): return Table_
table_ = Table_({'a': [1, 2]}); table_.title = 't'""",
        "type(table_) is Table_ and table_.title == 't' and type(table_.head(1)) is Table_",
    ),
    case(
        "an accessor of a cell",
        """
@pd.api.extensions.register_dataframe_accessor('twice')
class Twice:
    def __init__(self, df): self.df = df
    def total(self): return 2 * self.df.to_numpy().sum()
acc_df = pd.DataFrame({'a': [1, 2]})""",
        ["Twice(acc_df).total() == 6"],
    ),
    case(
        "an accessor by its name",
        "acc_df2 = pd.DataFrame({'a': [1, 2]})",
        "acc_df2.twice.total() == 6",
        known="the registration on the class of pandas is no variable: run the cell again. The class itself comes back",
    ),
    case(
        "pandas options are a session's own",
        "opt_rows = pd.get_option('display.max_rows')",
        "opt_rows == pd.get_option('display.max_rows')",
    ),
    case(
        "SciPy sparse matrix",
        "import scipy.sparse\nsps = scipy.sparse.random(5, 5, 0.4, random_state=0, format='csr')",
        same="sps.toarray()",
    ),
    case(
        "SciPy sparse array and its data by name",
        "spa = scipy.sparse.csr_array(np.eye(3)); spa_data = spa.data",
        "spa_data[0] = 9\nspa[0, 0] == 9",
    ),
    case("a frozen distribution", "import scipy.stats\nfroz = scipy.stats.norm(1, 2)", "froz.mean() == 1"),
    case(
        "an interpolator",
        "import scipy.interpolate\ninterp = scipy.interpolate.CubicSpline([0, 1, 2], [0, 1, 4])",
        same="float(interp(1.5))",
    ),
    case(
        "an optimisation's result",
        "import scipy.optimize\nres = scipy.optimize.minimize(lambda v: (v[0] - 3) ** 2, [0.])",
        same="res.x",
    ),
    case(
        "a KD tree",
        "import scipy.spatial\nkd = scipy.spatial.cKDTree([[0, 0], [1, 1]])",
        "kd.query([0.9, 0.9])[1] == 1",
    ),
    case(
        "a graph",
        "import networkx as nx\ngraph = nx.karate_club_graph(); graph.nodes[0]['note'] = 'first'",
        "graph.nodes[0]['note'] == 'first'",
        "sorted(graph.edges)",
    ),
    case(
        "a directed graph with objects as nodes",
        "class City: pass\ncity = City(); dg_ = nx.DiGraph([(city, 'sea')])",
        "list(dg_[city]) == ['sea']",
    ),
    case("a multigraph", "mg = nx.MultiGraph(); mg.add_edge(1, 2, key='a', w=3)", "mg[1][2]['a']['w'] == 3"),
    case(
        "a SymPy expression",
        "import sympy\nsx, sy = sympy.symbols('x y'); sexpr = sx ** 2 + sympy.sin(sy)",
        "sympy.diff(sexpr, sx) == 2 * sx and sexpr.has(sy)",
    ),
    case("a SymPy function", "sfun = sympy.Function('f'); sapplied = sfun(sx)", "sapplied.func == sfun"),
    case("a lambdified expression", "slam = sympy.lambdify(sx, sx ** 2, 'math')", "slam(3) == 9"),
    case("a SymPy matrix", "smat = sympy.Matrix([[1, 2], [3, 4]])", "smat.det() == -2"),
    case(
        "a pyarrow compute expression",
        "import pyarrow.compute as pc, pyarrow.dataset\npexpr = pc.field('a') > 1",
        "pexpr.equals(pc.field('a') > 1)",
    ),
    case(
        "a random state handed to an estimator",
        "rs_est = sklearn.ensemble.RandomForestClassifier(3, random_state=np.random.RandomState(1)); rs_est.fit(fit_x, fit_y)",
        same="rs_est.random_state.rand()",
    ),
    case(
        "an estimator of a cell",
        """
class Mean(sklearn.base.BaseEstimator, sklearn.base.RegressorMixin):
    def __init__(self, shift=0): self.shift = shift
    def fit(self, x, y): self.mean_ = y.mean(); return self
    def predict(self, x): return np.full(len(x), self.mean_ + self.shift)
mean_est = Mean(1).fit(fit_x, fit_y)""",
        ["type(mean_est) is Mean and mean_est.predict(fit_x)[0] == 1.5", "sklearn.base.clone(mean_est).shift == 1"],
    ),
    case(
        "a vectoriser with a tokeniser of a cell",
        "import sklearn.feature_extraction.text as skt\ndef toks(s): return s.split('-')\nvec = skt.CountVectorizer(tokenizer=toks).fit(['a-b', 'b-c'])",
        "sorted(vec.vocabulary_) == ['a', 'b', 'c']",
    ),
    case(
        "a pydantic model",
        "import pydantic\nclass Settings_(pydantic.BaseModel):\n    lr: float = 0.1\n    names: list[str] = []\npyd = Settings_(lr=0.5)",
        [
            "type(pyd) is Settings_ and pyd.lr == 0.5",
            "Settings_(lr='0.25').lr == 0.25",
            "pyd.model_dump() == {'lr': 0.5, 'names': []}",
        ],
    ),
    case(
        "an attrs class",
        "import attrs\n@attrs.define\nclass Att:\n    x: int = 1\natt = Att(5)",
        "att == Att(5) and type(att) is Att",
    ),
    case(
        "a traitlets object",
        "import traitlets\nclass Tr(traitlets.HasTraits):\n    n = traitlets.Int(3)\ntr = Tr(n=4)",
        [
            "tr.n == 4 and type(tr) is Tr",
            "try:\n    tr.n = 'x'; caught = False\nexcept traitlets.TraitError:\n    caught = True\ncaught",
        ],
    ),
    case("parsed HTML", "import bs4\nsoup = bs4.BeautifulSoup('<p>hi</p>', 'html.parser')", "soup.p.text == 'hi'"),
    case(
        "a response of requests",
        "import requests\nresp = requests.Response(); resp._content = b'abc'; resp.status_code = 200",
        "resp.content == b'abc' and resp.ok",
    ),
    case("a session of requests", "sess = requests.Session(); sess.headers['X-A'] = '1'", "sess.headers['X-A'] == '1'"),
]
