"""Reports: pages and pictures of a data set, and of an evaluation."""

from fastctc.crnn.report.evaluation_figures import plot_accuracy, plot_confusion, plot_worst
from fastctc.crnn.report.evaluation_report import write_evaluation_report
from fastctc.crnn.report.exploration import Exploration, explore, leaks
from fastctc.crnn.report.exploration_report import PICTURES, write_exploration_report
from fastctc.crnn.report.network_figure import plot_network
from fastctc.crnn.report.sheets import Titled, grid
from fastctc.crnn.report.suspects import Suspect, suspects

__all__ = [
    "PICTURES",
    "Exploration",
    "Suspect",
    "Titled",
    "explore",
    "grid",
    "leaks",
    "plot_accuracy",
    "plot_confusion",
    "plot_network",
    "plot_worst",
    "suspects",
    "write_evaluation_report",
    "write_exploration_report",
]
