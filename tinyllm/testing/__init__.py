from tinyllm.testing.gradcheck import gradcheck
from tinyllm.testing.numerical import numerical_vjp
from tinyllm.testing.taylor import taylor_order
from tinyllm.testing.report import GradCheckError, GradCheckReport
