"""HTTP: bodies, protocol limits, CORS, request ids, access log, problems."""

from api.http.body import BodyBudget, BodyReservation, headers_by_name, read_body, unpack
from api.http.cors import Cors
from api.http.problems import ERRORS, HANDLERS, HEADERS, Problem, problem_of
from api.http.request_ids import RequestIds

__all__ = [
    "ERRORS",
    "HANDLERS",
    "HEADERS",
    "BodyBudget",
    "BodyReservation",
    "Cors",
    "Problem",
    "RequestIds",
    "headers_by_name",
    "problem_of",
    "read_body",
    "unpack",
]
