-- Refuses mail for the addresses and domains of a list, at RCPT: the other recipients of the message still get it.
--
--   pmx-milter try examples/refuse_recipients.lua message.eml
--
-- The list is a file beside the policy, one entry a line. It is read when the policy is loaded (start, restart); load lists here, at the
-- top level, not in a callback. Case does not matter.
local refused = list.load("refused.txt")

local policy = {}

-- The part behind the last "@", or nil. Make helpers local: a function in the policy's table that is no callback is an error.
local function domain_of(address)
  return address:match("@([^@]*)$")
end

-- Called for each recipient. `args` is a list of the ESMTP words that came with it.
function policy.rcpt(ctx, recipient, args)
  local domain = domain_of(recipient)
  if refused:contains(recipient) or (domain and refused:contains("@" .. domain)) then
    log.info("refused recipient", recipient)
    -- SMTP code, enhanced code, text. 5xx refuses for good, 4xx for now. At rcpt a refusal is this recipient's only.
    return ctx:reply("550", "5.1.1", "no mail is taken for this recipient")
  end
end

return policy
