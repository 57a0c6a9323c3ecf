-- Appends one group of decisions; the function says the rest. Never inside a transaction: see there.
-- $1 text: the epoch; $2 … $72: the function's columns in its order, most as one text each, its values apart by line
-- feeds and, where they may be null, empty for null: that is much faster to encode than an array.
-- Locks: the head's row, until it commits.
SELECT * FROM log.append_v2(
    $1,
    -- decisions: what, under which key
    string_to_array($2, chr(10)), string_to_array($3, chr(10)), string_to_array($4, chr(10)),
    string_to_array($5, chr(10)), string_to_array($6, chr(10)), $7::bytea[], string_to_array($8, chr(10)),
    string_to_array($9, chr(10))::integer[],
    -- aggregates read
    string_to_array($10, chr(10))::integer[], string_to_array($11, chr(10)), string_to_array($12, chr(10))::bigint[],
    -- scopes read
    string_to_array($13, chr(10))::integer[], string_to_array($14, chr(10)), string_to_array($15, chr(10))::bigint[],
    -- claim keys read
    string_to_array($16, chr(10))::integer[], string_to_array($17, chr(10)), string_to_array($18, chr(10)),
    string_to_array($19, chr(10), ''),
    -- limits
    string_to_array($20, chr(10))::integer[], string_to_array($21, chr(10)),
    string_to_array($22, chr(10), '')::bigint[], string_to_array($23, chr(10), '')::bigint[],
    -- scopes freed
    string_to_array($24, chr(10))::integer[], string_to_array($25, chr(10)), string_to_array($26, chr(10)),
    string_to_array($27, chr(10))::integer[],
    -- keys taken
    string_to_array($28, chr(10))::integer[], string_to_array($29, chr(10)), string_to_array($30, chr(10)),
    string_to_array($31, chr(10)), string_to_array($32, chr(10))::bigint[], string_to_array($33, chr(10))::integer[],
    string_to_array($34, chr(10))::boolean[],
    -- events
    string_to_array($35, chr(10))::integer[], string_to_array($36, chr(10)), string_to_array($37, chr(10))::bigint[],
    string_to_array($38, chr(10)), string_to_array($39, chr(10))::integer[], string_to_array($40, chr(10), ''),
    string_to_array($41, chr(10), ''), string_to_array($42, chr(10), ''), string_to_array($43, chr(10), ''),
    string_to_array($44, chr(10), ''), string_to_array($45, chr(10)), string_to_array($46, chr(10)), $47::text[],
    string_to_array($48, chr(10)), string_to_array($49, chr(10), ''), string_to_array($50, chr(10), '')::bigint[],
    string_to_array($51, chr(10), ''), string_to_array($52, chr(10)), string_to_array($53, chr(10))::boolean[],
    string_to_array($54, chr(10)),
    -- people
    string_to_array($55, chr(10))::integer[], string_to_array($56, chr(10)), $57::text[], $58::text[],
    -- people looked up by e-mail
    string_to_array($59, chr(10))::integer[], $60::text[], string_to_array($61, chr(10), ''),
    -- credentials
    string_to_array($62, chr(10))::integer[], string_to_array($63, chr(10)), $64::bytea[],
    string_to_array($65, chr(10), ''), string_to_array($66, chr(10), ''), string_to_array($67, chr(10), ''),
    -- secrets
    string_to_array($68, chr(10))::integer[], string_to_array($69, chr(10)),
    string_to_array($70, chr(10), '')::integer[], string_to_array($71, chr(10), ''), $72::bytea[]
)
