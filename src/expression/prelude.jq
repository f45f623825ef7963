# The functions that are written in the language itself. Names with _ are for this file alone; none may run without end.
# After jq's manual, and the definitions of jaq (MIT).

def empty: {}[] as $x | .;
def error: error_empty as $x | .;
def error(msgs): (msgs | error_empty) as $x | .;
def null: [][0];
def true: 0 == 0;
def false: 0 != 0;

def select(f): if f then . else empty end;
def recurse: ..;
def values: select(. != null);
def nulls: select(. == null);
def booleans: select(type == "boolean");
def numbers: select(type == "number");
def strings: select(type == "string");
def arrays: select(type == "array");
def objects: select(type == "object");
def iterables: select(type == "array" or type == "object");
def scalars: select(type != "array" and type != "object");

def tostring: "\(.)";
def abs: if . < 0 then -. else . end;
def toboolean: if . == true or . == "true" then true elif . == false or . == "false" then false
  else error("cannot read as boolean") end;

def add(f): reduce f as $x (null; . + $x);
def add: add(.[]);
def map(f): [.[] | f];
def map_values(f): .[] |= f;
def min: min_by(.);
def max: max_by(.);
def unique_by(f): [group_by(f)[] | .[0]];
def unique: unique_by(.);
def keys: keys_unsorted | sort;
def in(xs): . as $x | xs | has($x);
def inside(xs): . as $x | xs | contains($x);
def index($i): indices($i) | if . == null then null else .[0] end;
def rindex($i): indices($i) | if . == null then null else .[-1:][0] end;
def join($sep): reduce .[] as $x (null; (if . == null then "" else . + $sep end) + ($x | if . == null then "" else tostring end))
  | if . == null then "" else . end;
def splits($sep): split($sep) | .[];
def ascii: [.] | implode;
def _flat: .[] | if type == "array" then _flat else . end;
def first: .[0];
def last: .[-1];
def nth(n): .[n];
def nth(n; g): first(skip(n; g));
def isempty(g): first((g | false), true);
def all(g; cond): isempty(g | cond and empty);
def any(g; cond): isempty(g | cond or empty) | not;
def all(cond): all(.[]; cond);
def any(cond): any(.[]; cond);
def all: all(.[]; .);
def any: any(.[]; .);
def flatten: [_flat];

def to_entries: [key_values[] as [$key, $value] | {$key, $value}];
def from_entries: reduce .[] as $e ({};
  . + {($e | if has("key") then .key elif has("k") then .k else .name end | if type == "string" then . else tojson end):
    ($e | if has("value") then .value else .v end)});
def with_entries(f): to_entries | map(f) | from_entries;

def paths: skip(1; path(..));
def paths(p): skip(1; path_value(..)) | if .[1] | p then .[0] else empty end;
def leaf_paths: paths(scalars);
def getpath($path): reduce $path[] as $p (.; .[$p]);
def setpath($path; $x): getpath($path) = $x;
def del(f): f |= empty;
def delpaths($paths): reduce ($paths | sort | reverse[]) as $path (.; getpath($path) |= empty);
def pick(f): . as $whole | reduce path(f) as $path (null; setpath($path; $whole | getpath($path)));
def transpose: . as $rows | [range(0; [.[] | length] | max // 0; 1) as $i | [$rows[][$i]]];

def @text: tostring;
def @json: tojson;
def @base64: tostring | encode_base64;
def @base64d: tostring | decode_base64;
def @uri: tostring | encode_uri;
def @urid: tostring | decode_uri;
